# SPDX-License-Identifier: Apache-2.0
"""Tables of labels as streams of typed records: CSV, TSV, Parquet, JSON, JSON lines.

A column's type is the narrowest that fits all its values: truth values, whole numbers, numbers,
text. `007` is text; an empty cell, `NA`, `nan`, `null` and `none` are no value where the column
is no text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vesalius.errors import CohortError
from vesalius.types import Json

_MOST_JSON = 512 << 20


def measure(path: Path) -> tuple[list[str], dict[str, str]]:
    """Return the columns of a table and their types: integer, double, boolean, text."""
    names: list[str] = []
    kinds: dict[str, set[str]] = {}
    for row in _raw(path):
        for name, value in row.items():
            if name not in kinds:
                names.append(name)
                kinds[name] = set()
            if value is not None:
                kinds[name].add(_kind(value))
    return names, {name: _widest(kinds[name]) for name in names}


def records(path: Path, types: Mapping[str, str]) -> Iterator[Json]:
    """Yield the rows of a table with the types that `measure` found; None for no value.

    Raises `CohortError` where the table cannot be read.
    """
    for row in _raw(path):
        yield {name: _typed(row.get(name), kind) for name, kind in types.items()}


def _raw(path: Path) -> Iterator[Json]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix in (".json", ".jsonl", ".ndjson"):
            yield from _json(path)
        elif suffix in (".csv", ".tsv", ".txt"):
            yield from _csv(path)
        else:
            raise CohortError(f"a table of labels is CSV, TSV, Parquet or JSON, got '{path.name}'")
    except FileNotFoundError as error:
        raise CohortError(f"the table of labels {path} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        if isinstance(error, CohortError):
            raise
        raise CohortError(f"the table of labels {path} cannot be read: {error}") from error


def _csv(path: Path) -> Iterator[Json]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        head = stream.read(65536)
        stream.seek(0)
        lines = csv.reader(stream, delimiter=_delimiter(head.split("\n", 1)[0], path))
        names = [name.strip() for name in next(lines, [])]
        for row in lines:
            yield {
                name: (value.strip() or None)
                for name, value in zip(names, row, strict=False)
                if name
            }


def _delimiter(line: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=lambda mark: line.count(mark)) if any(m in line for m in ",;\t") else ","


def _json(path: Path) -> Iterator[Json]:
    if path.stat().st_size > _MOST_JSON:
        raise CohortError(
            f"{path} is larger than {_MOST_JSON >> 20} MiB: convert it to CSV or Parquet"
        )
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() != ".json" or (
        "\n{" in text and text.lstrip()[:1] == "{" and _is_lines(text)
    ):
        value: Any = [json.loads(line) for line in io.StringIO(text) if line.strip()]
    else:
        value = json.loads(text)
    if isinstance(value, dict):
        if value and all(isinstance(one, dict) for one in value.values()):
            value = [{"key": key, **one} for key, one in value.items()]
        elif value and all(isinstance(one, list) for one in value.values()):
            columns = list(value)
            value = [
                dict(zip(columns, row, strict=False)) for row in zip(*value.values(), strict=False)
            ]
        else:
            value = [{"key": key, "label": one} for key, one in value.items()]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise CohortError(f"{path} must hold a list of objects, or an object of objects by key")
    for row in value:
        yield {
            str(name): json.dumps(one) if isinstance(one, dict | list) else one
            for name, one in row.items()
        }


def _is_lines(text: str) -> bool:
    try:
        json.loads(text.split("\n", 1)[0])
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> Iterator[Json]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(4096):
                for row in batch.to_pylist():
                    yield {k: _simple(v) for k, v in row.items()}
    except pa.ArrowException as error:
        raise CohortError(f"the table of labels {path} is damaged: {error}") from error


def _simple(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "double"
    text = str(value)
    if text.lower() in ("true", "false"):
        return "boolean"
    if re.fullmatch(r"[+-]?(0|[1-9]\d{0,17})", text):
        return "integer"
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) and not re.match(r"0\d", text):
        return "double"
    return "" if text.lower() in ("na", "nan", "n/a", "null", "none") else "text"


def _widest(kinds: set[str]) -> str:
    kinds = kinds - {""}
    if len(kinds) == 1:
        return kinds.pop()
    return "double" if kinds == {"integer", "double"} else "text"


def _typed(value: Any, kind: str) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if kind == "text":
        return str(value)
    if isinstance(value, str):
        if _kind(value) == "":
            return None
        if kind == "boolean":
            return value.lower() == "true"
    return int(value) if kind == "integer" else float(value) if kind == "double" else value
