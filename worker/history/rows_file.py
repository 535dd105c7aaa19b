"""The form of a file of ledger rows: Parquet where pyarrow is installed (the extra `parquet`), else compressed JSON lines.

The end of its name says which. Both are read, whichever is written now.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from worker.history.archive import Archive
from worker.history.policy import INSTALL, Format, has_pyarrow

LINES, PARQUET = ".jsonl.gz", ".parquet"


def write_rows(archive: Archive, stem: str, rows: Sequence[Mapping[str, Any]], wanted: Format) -> str:
    """Write rows to a file, and return its name. The same rows give the same bytes. Blocks. Raises OSError."""
    if wanted == "jsonl" or not has_pyarrow():
        name, content = stem + LINES, gzip.compress(b"\n".join(map(to_json, rows)) + b"\n", 6, mtime=0)
    else:
        name, content = stem + PARQUET, _as_parquet(rows)
    archive.write(name, content)
    return name


def read_rows(archive: Archive, prefix: str) -> Iterator[str]:
    """The rows of all files whose names begin with `prefix`, as JSON lines. Raises OSError.

    A killed worker and the one that went on for it may have written the same rows in both forms: one of the files counts.
    """
    names = archive.names(prefix)
    for name in names:
        if name.endswith(LINES):
            yield from _lines(archive.read(name))
        elif name.endswith(PARQUET) and name.removesuffix(PARQUET) + LINES not in names:
            yield from (to_json(row).decode() for row in _from_parquet(archive.read(name)))


def _lines(content: bytes) -> list[str]:
    try:
        return gzip.decompress(content).decode().splitlines()
    except (EOFError, zlib.error) as error:
        raise OSError(f"a file is damaged: {error}") from None


def _as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A column for each name that occurs; null where a row lacks it."""
    pa, parquet = _pyarrow()
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _column(pa, [row.get(name) for row in rows]) for name in names})
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _column(pa: Any, values: Sequence[Any]) -> Any:
    """Numbers as 64-bit numbers, text as text; values of several kinds, or of another, as text: JSON where they are no text."""
    kinds = {type(value) for value in values if value is not None}
    try:
        if kinds == {int}:
            return pa.array(values, pa.int64())
    except OverflowError:
        pass
    return pa.array([v if v is None or isinstance(v, str) else to_json(v).decode() for v in values], pa.string())


def _from_parquet(content: bytes) -> Iterator[dict[str, Any]]:
    pa, parquet = _pyarrow()
    try:
        for batch in parquet.ParquetFile(io.BytesIO(content)).iter_batches():
            for row in batch.to_pylist():
                yield {name: value for name, value in row.items() if value is not None}
    except pa.ArrowInvalid as error:
        raise OSError(f"a file is damaged: {error}") from None


def _pyarrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet part, imported when they are needed: that takes a third of a second."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise OSError(f"Parquet files need pyarrow: {INSTALL}") from None
    return pa, parquet
