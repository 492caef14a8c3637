"""``muxrec doctor``: the inventory and what does not fit, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from muxrec import __version__
from muxrec.doctor.checks import Finding, check_inventory
from muxrec.doctor.inventory import PACKAGES, Inventory, collect_inventory, read_packages
from muxrec.doctor.probes import probe_backends


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="Compare versions only, start no backend.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool, quick: bool) -> None:
    """Versions, devices, usable backends and every mismatch; exit 1 when something would fail."""
    probed = {} if quick else probe_backends(read_packages(sys.path))
    inventory = collect_inventory(backends=probed)
    findings = check_inventory(inventory)
    failed = any(finding.level == "fault" for finding in findings)
    click.echo(_as_json(inventory, findings) if as_json else _as_text(inventory, findings))
    context.exit(1 if failed else 0)


def _as_json(inventory: Inventory, findings: list[Finding]) -> str:
    value = {
        "muxrec": __version__,
        **dataclasses.asdict(inventory),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "sound": all(finding.level != "fault" for finding in findings),
    }
    return json.dumps(value, indent=1, sort_keys=True)


def _as_text(inventory: Inventory, findings: list[Finding]) -> str:
    gpus = ", ".join(inventory.gpus) or "no NVIDIA GPU"
    machine = f"{inventory.system} {inventory.machine}, {inventory.cpus} CPUs, {gpus}"
    lines = [
        f"muxrec {__version__}, Python {inventory.python}, {machine}",
        f"  disk      {inventory.free_bytes / 1e9:.0f} GB free",
        f"  java      {inventory.java or 'not found'}",
        f"  compiler  {inventory.compiler or 'not found'}",
        f"  browser   {inventory.browser or 'not found (the page tests are skipped)'}",
    ]
    for extra, names in PACKAGES.items():
        found = [f"{n} {v}" for n in names.split() if (v := inventory.version(n))]
        lines.append(f"  {extra:<9} {', '.join(found) or f'not installed: muxrec[{extra}]'}")
    lines += [f"  {name:<11} {said}" for name, said in inventory.backends.items()]
    for finding in findings:
        lines += [f"{finding.level}: {finding.what}", f"  -> {finding.remedy}"]
    faults = sum(finding.level == "fault" for finding in findings)
    verdict = f"{faults} faults" if faults else "sound: what is installed works together"
    return "\n".join([*lines, verdict])
