"""What the data commands print: a short summary for people, one JSON object for schedulers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muxrec.data.snapshot import SPLITS, Snapshot

if TYPE_CHECKING:
    from muxrec_jobs.build import Built


def build_result(built: Built) -> dict[str, Any]:
    """The machine-readable result of one build."""
    manifest = built.snapshot.manifest
    return {
        "command": "data build",
        "status": built.status,
        "folder": str(built.snapshot.folder),
        "as_of": manifest["as_of"],
        "digest": manifest["digest"],
        "counts": manifest["counts"],
        "rows": manifest["rows"],
        "slices": manifest["slices"],
        "popularity_share": manifest["popularity_share"],
        "seconds": built.seconds,
        "removed": built.removed,
    }


def build_report(built: Built) -> str:
    """The summary of one build, a few lines."""
    manifest = built.snapshot.manifest
    counts, rows, slices = manifest["counts"], manifest["rows"], manifest["slices"]
    status = {
        "built": "new snapshot",
        "same": "built again, same content: the published snapshot stays",
        "unchanged": "inputs, recipe and versions are unchanged: nothing to do",
    }[built.status]
    share = manifest["popularity_share"]
    lines = [
        f"dataset as of {manifest['as_of']}: {status}",
        f"  events   {counts['read']:,} read, {counts['kept']:,} kept",
        f"  left out {counts['outside_time_range']:,} outside the time range",
        f"  refused  {_reasons(counts['rejected'])}",
        f"  slices   {', '.join(f'{name} {slices[name]:,}' for name in SPLITS)}",
        f"  items    {rows['items']:,}, refused {_reasons(counts['rejected_items'])}",
        f"  pairs    {rows['pairs']:,}, without {counts['below_min_weight']:,} light events",
        *(
            f"  aside    {source}: {_reasons(reasons)}"
            for source, reasons in counts.get("set_aside", {}).items()
        ),
        "  popular  " + _popularity(share),
        f"  folder   {built.snapshot.folder}",
    ]
    if built.removed:
        lines.append(f"  removed  {', '.join(built.removed)} (--keep)")
    return "\n".join(lines)


def check_report(snapshot: Snapshot, failures: dict[str, int]) -> str:
    """The outcome of every expectation, one line each."""
    files = snapshot.manifest["files"]
    size = sum(entry["bytes"] for entry in files.values())
    lines = [f"{snapshot.folder}: {len(files)} files, {size:,} bytes, every SHA-256 as listed"]
    for name, rows in failures.items():
        lines.append(f"  BROKEN {name}: {rows:,}" if rows else f"  ok     {name}")
    return "\n".join(lines)


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {rows:,}" for reason, rows in counts.items()) or "none"


def _popularity(share: float | None) -> str:
    if share is None:
        return "no training pairs"
    return f"{share:.1%} of the items have one of the 50 most popular as best partner"
