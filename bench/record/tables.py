"""The recorded tables as Parquet: explicit schemas, checksummed pages, columns read on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import InternalError, RecordError
from bench.record.schema import TABLES, Column

# What a sampler may leave in a launch's folder while it runs; both survive being cut off in the middle of a write.
STREAMS = ("samples.jsonl", "samples.arrows")

_TYPES = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "bool": pa.bool_()}
_DOCUMENTS = pa.schema([pa.field("document", pa.string(), nullable=False)])


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a recorded table; nullability as in record.schema."""
    return pa.schema([pa.field(column.name, _TYPES[column.type], column.null) for column in TABLES[table]])


def from_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table from one mapping per row; InternalError for an unknown column, or a null where none may be."""
    known = {column.name for column in TABLES[table]}
    for row in rows:
        if unknown := row.keys() - known:
            raise InternalError(f"{table} has no column {', '.join(sorted(unknown))}")
    return from_columns(table, {column.name: [row.get(column.name) for row in rows] for column in TABLES[table]})


def from_columns(table: str, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table from one sequence per column; columns that are left out are null throughout."""
    if unknown := columns.keys() - {column.name for column in TABLES[table]}:
        raise InternalError(f"{table} has no column {', '.join(sorted(unknown))}")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InternalError(f"the columns of {table} differ in length: {lengths}")
    length = next(iter(lengths.values()), 0)
    arrays = [_array(table, column, columns.get(column.name), length) for column in TABLES[table]]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(table))


def from_documents(documents: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Free-form JSON documents, one a row."""
    texts = [json.dumps(document, ensure_ascii=False) for document in documents]
    return pa.Table.from_arrays([pa.array(texts, pa.string())], schema=_DOCUMENTS)


def to_documents(path: Path) -> list[dict[str, Any]]:
    """What `from_documents` wrote."""
    return [json.loads(text) for text in _load(path, ["document"])["document"].to_pylist()]


def write(path: Path, table: pa.Table) -> None:
    """Write a table and force it to the disk. Stamps are delta-packed: a chunk costs a few bytes."""
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    whole = [field.name for field in table.schema if pa.types.is_int64(field.type)]
    with path.open("wb") as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=text,
            column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
            write_page_checksum=True,
        )
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A recorded table, or some of its columns; RecordError if it is missing, damaged or has another shape.

    A column that may be null and that an earlier version did not write yet is null throughout.
    """
    result = _load(path, columns)
    wanted = (
        arrow_schema(table) if columns is None else pa.schema([arrow_schema(table).field(name) for name in columns])
    )
    # A column that may be null and is not there had not been invented when the launch was recorded.
    missing = [field for field in wanted if field.name not in result.schema.names]
    if lacking := sorted(field.name for field in missing if not field.nullable):
        raise RecordError(f"{path} lacks the columns {', '.join(lacking)}", hint="another version wrote it")
    for field in missing:
        result = result.append_column(field, pa.nulls(len(result), field.type))
    return result.select(wanted.names)


def streamed_samples(folder: Path) -> pa.Table:
    """What the sampler streamed into a launch's folder, up to where it was cut off; empty if nothing was sampled."""
    lines, stream = (folder / name for name in STREAMS)
    if stream.exists():
        return _arrow_stream(stream)
    return from_columns("samples", _readings(lines) if lines.exists() else {})


def _array(table: str, column: Column, values: Sequence[Any] | None, length: int) -> pa.Array:
    try:
        array = pa.array([None] * length if values is None else values, _TYPES[column.type], from_pandas=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InternalError(f"{table}.{column.name} must be {column.type}: {error}") from error
    if array.null_count and not column.null:
        raise InternalError(f"{table}.{column.name} may not be null, and is in {array.null_count} of {length} rows")
    return array


def _load(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        # Columns that the file does not have are left out.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(None if columns is None else list(columns))
    except FileNotFoundError as error:
        raise RecordError(f"{path} does not exist", hint="the launch's folder is damaged") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}", hint="move the launch away and run with --resume") from error


def _readings(path: Path) -> dict[str, list[Any]]:
    """Lines `{"t": ns, "p": probe, "v": {field: value or [null, reason]}}`; one cut off or garbled is left out."""
    columns: dict[str, list[Any]] = {column.name: [] for column in TABLES["samples"]}
    with path.open("rb") as file:
        for line in file:
            try:
                tick = json.loads(line)
                t_ns, probe, values = int(tick["t"]), str(tick["p"]), dict(tick["v"])
            except (ValueError, TypeError, KeyError):
                continue
            for name, reading in values.items():
                value, reason = reading if isinstance(reading, list) else (reading, None)
                for column, item in zip(columns.values(), (t_ns, probe, name, value, reason), strict=True):
                    column.append(item)
    return columns


def _arrow_stream(path: Path) -> pa.Table:
    schema, batches = arrow_schema("samples"), []
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            batches.extend(reader)
    except (pa.ArrowException, OSError):
        # Cut off: the batches before the cut are good.
        pass
    return pa.Table.from_batches(batches).select(schema.names).cast(schema) if batches else schema.empty_table()
