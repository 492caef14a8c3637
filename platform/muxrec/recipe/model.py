"""The recipe's types. Every key a YAML recipe may hold is a field here, with its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from muxrec.recipe.divergences import DIVERGENCE_SPECS, DivergenceName
from muxrec.spec.features import FeatureSpec, TableSpec

Scale = Literal["none", "cosine"]


@dataclass(frozen=True)
class TableFile:
    """A generic input table.

    Attributes:
        path: A file, a folder of parquet files, or a glob.
        format: ``parquet``, ``csv`` (gzip allowed) or ``jsonl``.
        separator: Field separator of a csv.
        columns: Canonical column name -> name in the file, for columns that are called otherwise.
    """

    path: str
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    separator: str = ","
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where the raw logs and the catalogue are read from.

    Attributes:
        kind: ``generic`` (``interactions`` and ``items`` given as files), ``movielens`` (a folder
            with ratings.csv and movies.csv, optionally tags, links, plots, keywords and posters),
            or ``recbole`` (atomic files ``<name>.inter`` and ``<name>.item``, gzip allowed).
        path: Folder of a movielens or recbole source.
        interactions: Interactions file of a generic source.
        items: Catalogue file of a generic source; None where there are ids only.
        relations: Relation name -> catalogue column that lists the related item ids, e.g.
            ``{complement: r_complement}``; used as ground truth in evaluation.
    """

    kind: Literal["generic", "movielens", "recbole"]
    path: str | None = None
    interactions: TableFile | None = None
    items: TableFile | None = None
    relations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Global time split, by quantiles of the event time.

    Attributes:
        train: Share of events, oldest first, that training may see.
        validation: Share after it for every choice; the rest is the test slice.
    """

    train: float = 0.8
    validation: float = 0.1


@dataclass(frozen=True)
class Pairs:
    """How item pairs are mined from users' event sequences.

    Attributes:
        window_events: Two events of a user pair up when at most this many positions apart.
        window_days: ... and at most this many days apart.
        min_weight: Events with a smaller weight (rating) are left out of pairs, and counted.
        min_count: Pairs seen for fewer users are left out.
        max_user_events: Only a user's latest events are used beyond this number.
        user_discount: ``inverse_log`` divides a user's pairs by log2(1 + N_u), ``inverse`` by N_u,
            ``none`` by 1, where N_u is the user's number of events.
        scale: ``cosine`` divides the summed weight by sqrt(s_a * s_b), the items' summed weights;
            without it popularity wins on dense data.
        top_n: Pairs kept per item, by score, ties by item id.
    """

    window_events: int = 10
    window_days: float = 7.0
    min_weight: float = 0.0
    min_count: int = 1
    max_user_events: int = 500
    user_discount: Literal["inverse_log", "inverse", "none"] = "inverse_log"
    scale: Scale = "cosine"
    top_n: int = 50


@dataclass(frozen=True)
class Data:
    """Input, checks, split and pairs of the data job.

    Attributes:
        source: Raw input.
        split: Global time split.
        pairs: Pair mining.
        lookback_days: Events older than this before the as-of date are left out; None keeps all.
        max_rejected: Largest share of rejected interaction rows; above it the build fails.
        partition: Size of the event table's date partitions.
    """

    source: Source
    split: Split = Split()
    pairs: Pairs = Pairs()
    lookback_days: int | None = None
    max_rejected: float = 0.1
    partition: Literal["day", "month", "year"] = "month"


@dataclass(frozen=True)
class Tower:
    """The item tower.

    Attributes:
        width: Width of the item vector, and of every modality's vector before fusion.
        hidden: Width of a hidden layer in each modality's projection; 0 for a linear projection.
        fusion: ``gate`` is the NoteLLM-2 late-fusion gate, ``concat`` a linear layer over all,
            ``mean`` the mean of the present modalities.
        modalities: Modalities in use; None for all that the features declare.
        normalise: Whether every modality's vector has the same length, sqrt(width), before fusion;
            without it a modality that starts small, such as a table of ids, is drowned out.
        dropout: Dropout on the inputs of each projection.
        id_dropout: Probability that an item's id modality is hidden in a training step, so that
            the content learns to stand alone (cold items).
        modality_dropout: Probability that one content modality is hidden, where another is present.
        matryoshka: Widths, rising, at which a prefix of the vector is a vector too; empty for none.
    """

    width: int = 64
    hidden: int = 0
    fusion: Literal["gate", "concat", "mean"] = "gate"
    modalities: tuple[str, ...] | None = None
    normalise: bool = True
    dropout: float = 0.2
    id_dropout: float = 0.5
    modality_dropout: float = 0.1
    matryoshka: tuple[int, ...] = ()


@dataclass(frozen=True)
class Objective:
    """The contrastive objective: score matrix, relation, divergence.

    Attributes:
        positives: ``multi`` counts every in-batch item that is a known pair of the query as a
            positive, ``single`` only its own partner and ignores the other known pairs.
        divergence: How a query's scores are compared with its positives: ``cross_entropy``,
            ``sigmoid``, ``similarity_distribution``, ``triplet`` or ``angular_margin``
            (docs/training.md has their formulas).
        divergence_options: The divergence's options, by name.
        temperature: Start value of the temperature that cosines are divided by; ``triplet`` has
            none.
        learn_temperature: Whether it is trained, within [0.01, 1].
        logq: Strength of the correction for the sampling probability of in-batch candidates;
            0 off, 1 the full logQ correction.
        modality_weight: Weight of the same loss on each single modality's vector (NoteLLM-2 gives
            the visual one 0.1 of the total).
    """

    positives: Literal["multi", "single"] = "multi"
    divergence: DivergenceName = "cross_entropy"
    divergence_options: dict[str, float] = field(default_factory=dict[str, float])
    temperature: float = 0.05
    learn_temperature: bool = True
    logq: float = 0.0
    modality_weight: float = 0.0

    def all_divergence_options(self) -> dict[str, float]:
        """Every option of the divergence, as given or by its default."""
        known = DIVERGENCE_SPECS[self.divergence].options
        return {n: self.divergence_options.get(n, option.default) for n, option in known.items()}


@dataclass(frozen=True)
class Train:
    """The training loop.

    Attributes:
        engine: ``torchrec`` trains tables by fused kernels, ``reference`` in plain torch,
            ``auto`` takes torchrec where it is installed.
        epochs: Passes over the training pairs.
        batch_size: Pairs per step (and rank).
        lr: Learning rate of the dense part (AdamW).
        table_lr: Learning rate of the tables (row-wise Adagrad).
        weight_decay: AdamW weight decay of the dense part.
        warmup: Share of the steps with linear warm-up; cosine decay follows.
        checkpoint_every: Steps between checkpoints; 0 for one per epoch.
        log_every: Steps between metrics sent to MLflow.
        keep: Checkpoints kept.
        early_stop: Epochs without a better validation ndcg after which training stops; 0 never.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` is bf16 on a GPU that has it, else fp32.
        threads: CPU threads of torch; 0 for torch's own choice.
    """

    engine: Literal["auto", "torchrec", "reference"] = "auto"
    epochs: int = 8
    batch_size: int = 512
    lr: float = 2e-3
    table_lr: float = 0.05
    weight_decay: float = 1e-4
    warmup: float = 0.1
    checkpoint_every: int = 0
    log_every: int = 10
    keep: int = 2
    early_stop: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The evaluation protocol.

    Attributes:
        ks: Cut-offs of recall and ndcg.
        max_relevant: Relevant items kept per query, the best by pair score of the test period.
        min_events: Fewest test-period events an item needs to be a query.
        bootstrap: Resamples for the 95 % intervals.
        ablations: Towers trained and printed beside the full one, each by its modalities, e.g.
            ``{ids only: [id], text only: [text]}``.
        controls: Whether the two controls are run: images permuted over items, encoders replaced
            by random projections.
        seeds: Seeds per trained row.
        untrained_text: Model folder or ``package:NAME`` of the untrained text baseline; None for
            the encoder of the first ``text`` feature, or no such row.
    """

    ks: tuple[int, ...] = (10, 50, 100)
    max_relevant: int = 10
    min_events: int = 3
    bootstrap: int = 1000
    ablations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    controls: bool = True
    seeds: int = 1
    untrained_text: str | None = None


@dataclass(frozen=True)
class Index:
    """The neighbour index.

    Attributes:
        m: hnswlib's M, links per node.
        ef_construction: Candidate list size while building.
        ef_search: Candidate list size while searching.
        neighbours: Neighbours precomputed per item, by exact search.
        golden_queries: Queries stored with their answers, checked at every load.
    """

    m: int = 16
    ef_construction: int = 200
    ef_search: int = 64
    neighbours: int = 100
    golden_queries: int = 64


@dataclass(frozen=True)
class Export:
    """The bundle.

    Attributes:
        opset: ONNX opset of the exported graphs.
        max_abs_error: Largest difference allowed between torch and ONNX vectors.
        min_same_top10: Smallest share of items whose ten nearest items agree.
        display: Catalogue columns copied into the bundle for the page.
        filters: Catalogue columns that requests may filter by.
        image: Catalogue column with the picture file, copied into the bundle for the page.
    """

    opset: int = 20
    max_abs_error: float = 1e-4
    min_same_top10: float = 0.999
    display: tuple[str, ...] = ("title",)
    filters: tuple[str, ...] = ()
    image: str | None = None


@dataclass(frozen=True)
class Tracking:
    """MLflow.

    Attributes:
        uri: Tracking and registry server; None for SQLite inside the output folder.
        experiment: Experiment name; None for the recipe's name.
        model: Registered model's name; None for the recipe's name.
    """

    uri: str | None = None
    experiment: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run.

    Attributes:
        name: Short name: letters, digits, ``-`` and ``_``.
        data: Input, split and pairs.
        features: Inputs of the item tower.
        tables: Embedding tables of the sparse features.
        output: Folder of the run's datasets, checkpoints, reports and bundles; None for
            ``runs/<name>``.
        seed: Seed of everything random.
    """

    name: str
    data: Data
    features: tuple[FeatureSpec, ...]
    tables: tuple[TableSpec, ...] = ()
    output: str | None = None
    seed: int = 0
    tower: Tower = Tower()
    objective: Objective = Objective()
    train: Train = Train()
    evaluation: Evaluation = Evaluation()
    index: Index = Index()
    export: Export = Export()
    tracking: Tracking = Tracking()
