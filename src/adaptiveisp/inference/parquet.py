"""Rows of a run as a Parquet file, with the columns of `records`; pyarrow is imported when one is asked for."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError
from adaptiveisp.inference.records import COLUMNS, LATER_COLUMNS, TIMES, Row
from adaptiveisp.utils.files import atomic_path
from adaptiveisp.utils.optional_imports import import_extra

GROUP_ROWS = 1000
"""Rows that are written at once, which bounds the memory."""


def schema() -> Any:
    """The columns and their types as a schema of pyarrow.

    Raises:
        AdaptiveISPError: pyarrow is not installed.
    """
    pa = import_extra("pyarrow", "parquet")
    text, numbers = pa.string(), pa.list_(pa.float64())
    texts = pa.list_(text)
    stage = pa.struct([("module", text), ("params", pa.map_(text, pa.float64()))])
    levels = [("shape", pa.list_(pa.int32())), ("black", numbers), ("white", pa.float64()), ("lowest", numbers)]
    return pa.schema(
        [
            *(("frame", text), ("number", pa.int64()), ("stem", text), ("width", pa.int32()), ("height", pa.int32())),
            *(("policy", text), ("detector", text), ("size", pa.int32())),
            *(("boxes", pa.list_(numbers)), ("scores", numbers), ("labels", texts)),
            *(("pipeline", pa.list_(stage)), ("module_set", text)),
            ("times", pa.struct([(name, pa.float64()) for name in TIMES])),
            *(("dropped_boxes", pa.int32()), ("dropped_modules", texts)),
            ("remarks", pa.list_(pa.struct([("kind", text), ("text", text)]))),
            *(("raw", pa.struct(levels)), ("files", texts), ("stamp", text), ("skipped", text)),
        ]
    )


def _earlier_schema() -> Any:
    """The schema of files of earlier commits."""
    columns = schema()
    for name in LATER_COLUMNS:
        columns = columns.remove(columns.get_field_index(name))
    return columns


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows to a Parquet file, which appears whole or not at all, and returns their number.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
        AdaptiveISPError: pyarrow is not installed.
    """
    pa, writer = import_extra("pyarrow", "parquet"), import_extra("pyarrow.parquet", "parquet")
    columns, count, group = schema(), 0, list[Row]()
    with atomic_path(path) as temporary, writer.ParquetWriter(temporary, columns, compression="zstd") as target:
        for row in rows:
            group.append(_for_arrow(row))
            count += 1
            if len(group) >= GROUP_ROWS:
                target.write_table(pa.Table.from_pylist(group, schema=columns))
                group = []
        if group:
            target.write_table(pa.Table.from_pylist(group, schema=columns))
    return count


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a Parquet file that `write_rows` wrote, as they were.

    Raises:
        OutputError: it cannot be read, or has other columns.
        AdaptiveISPError: pyarrow is not installed.
    """
    pa, reader = import_extra("pyarrow", "parquet"), import_extra("pyarrow.parquet", "parquet")
    try:
        with reader.ParquetFile(path) as file:
            if not any(file.schema_arrow.equals(one) for one in (schema(), _earlier_schema())):
                raise OutputError(f"{path}: has other columns than a run writes; give another file")
            for batch in file.iter_batches(batch_size=GROUP_ROWS):
                yield from (_from_arrow(row) for row in batch.to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read as Parquet ({error}); give another file") from error


def _for_arrow(row: Row) -> Row:
    """A row whose maps are lists of pairs, as pyarrow takes them."""
    stages = row["pipeline"]
    if stages is None:
        return row
    return {**row, "pipeline": [{**stage, "params": list(stage["params"].items())} for stage in stages]}


def _from_arrow(row: Row) -> Row:
    row = {name: row.get(name) for name in COLUMNS}
    stages = row["pipeline"]
    if stages is None:
        return row
    return {**row, "pipeline": [{**stage, "params": dict(stage["params"])} for stage in stages]}
