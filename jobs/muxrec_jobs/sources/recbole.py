"""RecBole atomic files: tab-separated ``.inter`` and ``.item`` with ``name:type`` headers."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from muxrec.errors import DataError
from muxrec.recipe.model import Source
from muxrec_jobs.schemas import MALFORMED
from muxrec_jobs.sources.beside import unreadable_numbers
from muxrec_jobs.sources.files import read_csv
from muxrec_jobs.sources.raw import Raw, raw_events, source_folder

WEIGHT_NAMES = ("weight", "rating")
TYPES = ("token", "token_seq", "float", "float_seq")


class RecboleReader:
    """Reads ``<name>.inter`` and ``<name>.item`` of a folder, gzip allowed."""

    def paths(self, source: Source) -> list[Path]:
        """The interactions file and, where there is one, the item file."""
        folder = source_folder(source)
        items = _one_file(folder, ".item", required=False)
        return [*_one_file(folder, ".inter", required=True), *items]

    def read(self, spark: SparkSession, source: Source) -> Raw:
        """Typed items; a rating column becomes the weight; what is no number is set aside."""
        files = self.paths(source)
        events = _read(spark, files[0])
        names = {column.partition(":")[0]: column for column in events.columns}
        mapping = {n: names[n] for n in ("user_id", "item_id", "timestamp") if n in names}
        weight = next((names[n] for n in WEIGHT_NAMES if n in names), None)
        mapping |= {"weight": weight} if weight else {}
        interactions = raw_events(events, mapping, origin=str(files[0]))
        if len(files) == 1:
            return Raw(interactions, None)
        items = _read(spark, files[1])
        return Raw(interactions, _items(items, files[1]), beside=_wrong_numbers(items))


def _one_file(folder: Path, suffix: str, *, required: bool) -> list[Path]:
    found = [*folder.glob(f"*{suffix}"), *folder.glob(f"*{suffix}.gz")]
    if len(found) > 1 or (required and not found):
        what = f"{len(found)} files" if found else "no file"
        raise DataError(f"{folder}: expected one *{suffix} or *{suffix}.gz, found {what}")
    return found


def _read(spark: SparkSession, file: Path) -> DataFrame:
    return read_csv(spark, [file], separator="\t", quote="")


def _items(raw: DataFrame, file: Path) -> DataFrame:
    fields = [c.partition(":")[::2] for c in raw.columns if c != MALFORMED]
    unknown = [f"{name}:{kind}" for name, kind in fields if kind not in TYPES]
    if unknown:
        raise DataError(f"{file}: {unknown[0]} is not name:type with type {', '.join(TYPES)}")
    if ("item_id", "token") not in fields:
        raise DataError(f"{file}: no column item_id:token")
    columns = [_typed(name, kind) for name, kind in fields]
    titles = [f"{n}:{k}" for n, k in fields if n.endswith("title") and k.startswith("token")]
    if titles and "title" not in {name for name, _ in fields}:
        columns.append(_text(titles[0]).alias("title"))
    words = [f"{n}:{k}" for n, k in fields if k == "token_seq"]
    if words and "text" not in {name for name, _ in fields}:
        columns.append(F.concat_ws(" ", *[_text(name) for name in words]).alias("text"))
    return raw.select(*columns, MALFORMED)


def _text(column: str) -> Column:
    return F.nullif(F.trim(F.col(f"`{column}`")), F.lit(""))


def _typed(name: str, kind: str) -> Column:
    text = _text(f"{name}:{kind}")
    if kind == "token":
        return text.alias(name)
    if kind == "token_seq":
        return F.split(text, r"\s+").alias(name)
    return _number(text, kind).alias(name)


def _number(text: Column, kind: str) -> Column:
    """A float, or a list of them; null where any of it is no number."""
    if kind == "float":
        return text.try_cast("double")
    numbers = F.transform(F.split(text, r"\s+"), lambda part: part.try_cast("double"))
    return F.when(~F.exists(numbers, F.isnull), numbers)


def _wrong_numbers(raw: DataFrame) -> DataFrame | None:
    kinds = {c: c.partition(":")[2] for c in raw.columns if c != MALFORMED}
    wrong = {
        column: _text(column).isNotNull() & _number(_text(column), kind).isNull()
        for column, kind in kinds.items()
        if kind.startswith("float")
    }
    return unreadable_numbers(raw, wrong, key="item_id:token") if wrong else None
