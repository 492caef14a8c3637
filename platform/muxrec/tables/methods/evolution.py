"""An evolutionary search for the width of every feature.

Source: Lyu et al., CIKM 2022, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Genes = tuple[int, ...]

POPULATION, PARENTS, MUTANTS, CROSSINGS = 20, 10, 10, 10
MUTATED = 0.1
"""Chance of a feature's width to be drawn anew in a mutant."""


def best_genes(
    quality: Callable[[Genes], float],
    *,
    features: int,
    width: int,
    rounds: int,
    generator: torch.Generator,
) -> Genes:
    """The widths of the features with the best quality found; of equals the widest.

    Args:
        quality: Quality of some widths, higher is better; asked once for each.
        features: Features, at least 1.
        width: Largest width; widths are in ``[1, width]``.
        rounds: Rounds of mutation and crossover.
        generator: Draws everything.
    """
    known: dict[Genes, tuple[float, int]] = {}

    def ranked(candidates: list[Genes]) -> list[Genes]:
        for genes in candidates:
            if genes not in known:
                known[genes] = quality(genes), sum(genes)
        return sorted(set(candidates), key=known.__getitem__, reverse=True)

    first = [(width,) * features]
    first += [drawn(features, width, generator) for _ in range(POPULATION - 1)]
    population = ranked(first)
    for _ in range(rounds):
        parents = population[:PARENTS]
        children = [mutant(picked(parents, generator), width, generator) for _ in range(MUTANTS)]
        children += [
            crossed(picked(parents, generator), picked(parents, generator), generator)
            for _ in range(CROSSINGS)
        ]
        population = ranked([*parents, *children])[:POPULATION]
    return population[0]


def drawn(features: int, width: int, generator: torch.Generator) -> Genes:
    """Random widths."""
    return tuple(torch.randint(1, width + 1, (features,), generator=generator).tolist())


def picked(parents: list[Genes], generator: torch.Generator) -> Genes:
    """One of the parents."""
    return parents[int(torch.randint(len(parents), (1,), generator=generator))]


def mutant(parent: Genes, width: int, generator: torch.Generator) -> Genes:
    """New widths of which some differ from the parent's, which stays as it is."""
    other = drawn(len(parent), width, generator)
    changes = (torch.rand(len(parent), generator=generator) < MUTATED).tolist()
    return tuple(
        new if is_new else old for old, new, is_new in zip(parent, other, changes, strict=True)
    )


def crossed(left: Genes, right: Genes, generator: torch.Generator) -> Genes:
    """The first features' widths of one parent and the others' of the other one."""
    point = int(torch.randint(len(left) + 1, (1,), generator=generator))
    return left[:point] + right[point:]
