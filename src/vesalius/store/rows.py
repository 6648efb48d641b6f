# SPDX-License-Identifier: Apache-2.0
"""From entries to rows of a table and back; what cannot be kept is refused at this door."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vesalius.errors import DataError, UsageError, did_you_mean
from vesalius.store.protocol import Entry, Fact
from vesalius.store.words import terms
from vesalius.types import Array

KINDS = {"text": pa.string(), "integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_()}
OWN = ("key", "case", "patient", "vector", "words", "terms", "thumbnail")  # columns of every row
NAMED = ("key", "case", "patient")  # those of them that a filter may name
_LENGTH_ERROR = 1e-3  # of a vector, from one
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of facts if they can be kept.

    Raises:
        UsageError: a name that is taken or not a plain word, or an unknown type.
    """
    taken = {name.lower() for name in OWN}
    for name, kind in columns.items():
        if not _NAME.fullmatch(name) or name.lower() in taken:
            raise UsageError(
                f"'{name}' cannot name a column: letters, digits and _, a letter first, at most "
                f"63, none of {', '.join(OWN)}, each once whatever its case"
            )
        if kind not in KINDS:
            raise UsageError(
                f"column '{name}': unknown type '{kind}'.{did_you_mean(kind, KINDS)} "
                f"Types are {', '.join(KINDS)}"
            )
        taken.add(name.lower())
    return dict(columns)


def filterable(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the columns that a condition may name, with their types."""
    return {**dict.fromkeys(NAMED, "text"), **columns}


def schema(dimension: int, columns: Mapping[str, str]) -> pa.Schema:
    """Return the Arrow schema of rows; an archive of words alone has no column of vectors."""
    text = pa.string()
    fields = [pa.field(name, text, nullable=False) for name in NAMED]
    if dimension:
        fields.append(pa.field("vector", pa.list_(pa.float32(), dimension)))
    fields += [pa.field("words", text, nullable=False), pa.field("terms", text, nullable=False)]
    fields.append(pa.field("thumbnail", pa.binary(), nullable=False))
    return pa.schema(fields + [pa.field(name, KINDS[kind]) for name, kind in columns.items()])


def table(entries: Iterable[Entry], dimension: int, columns: Mapping[str, str]) -> pa.Table:
    """Return checked rows, one a key: of two entries of one key the later counts.

    Raises:
        DataError: see `Archive.upsert`.
    """
    kept = {entry.key: entry for entry in entries}
    shape = schema(dimension, columns)
    found: dict[str, list[Any]] = {name: [] for name in shape.names if name != "vector"}
    vectors = np.zeros((len(kept), dimension), np.float32)
    missing = np.zeros(len(kept), bool)
    for at, entry in enumerate(kept.values()):
        if not entry.key:
            raise DataError("an entry has no key: each needs one, unique in the archive")
        unknown = [name for name in entry.facts if name not in columns]
        if unknown:
            raise DataError(
                f"entry '{entry.key}': the archive has no column '{unknown[0]}'."
                f"{did_you_mean(unknown[0], columns)} Its columns are "
                f"{', '.join(sorted(columns)) or 'none'}; make a new archive for others"
            )
        missing[at] = entry.vector is None
        if entry.vector is not None:
            vectors[at] = checked_vector(entry.key, entry.vector, dimension)
        for name in (*NAMED, "words"):
            found[name].append(_checked_text(entry.key, name, getattr(entry, name)))
        found["terms"].append(" ".join(terms(entry.words)))
        found["thumbnail"].append(entry.thumbnail)
        for name, kind in columns.items():
            found[name].append(_checked_fact(entry.key, name, kind, entry.facts.get(name)))
    arrays = {name: pa.array(values, shape.field(name).type) for name, values in found.items()}
    if dimension:
        flat = pa.array(vectors.ravel())
        arrays["vector"] = pa.FixedSizeListArray.from_arrays(
            flat, dimension, mask=pa.array(missing)
        )
    return pa.table([arrays[name] for name in shape.names], schema=shape)


def checked_vector(key: str, vector: Array, dimension: int) -> Array:
    """Return an entry's vector as float32 if it is one of length one.

    Raises:
        DataError: another number of values, not finite, or of another length.
    """
    found = np.asarray(vector, np.float32)
    if not dimension:
        raise DataError(
            f"entry '{key}' has a vector, but the archive was made for words alone (dimension 0)"
        )
    if found.shape != (dimension,):
        raise DataError(
            f"entry '{key}': a vector of shape {found.shape}; the archive holds vectors of "
            f"{dimension} values"
        )
    length = float(np.sqrt(np.square(found, dtype=np.float64).sum()))
    if not abs(length - 1.0) <= _LENGTH_ERROR:  # not finite is refused as well
        raise DataError(
            f"entry '{key}': a vector of length {length:.4g}; vectors are finite and of length one"
        )
    return found


def checked_queries(vectors: Array, dimension: int) -> Array:
    """Return `(n, d)` float32 queries of length one.

    Raises:
        UsageError: another shape, values that are not finite, a vector of zeros.
    """
    found = np.atleast_2d(np.asarray(vectors, np.float64))
    if found.ndim != 2 or found.shape[1] != dimension or not dimension:
        held = f"vectors of {dimension} values" if dimension else "words alone"
        raise UsageError(
            f"a query of shape {np.shape(vectors)}; the archive holds {held}: use the encoder that "
            "made it"
        )
    length = np.linalg.norm(found, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        raise UsageError("a vector of the query is zero or not finite: it is near nothing")
    scaled: Array = (found / length).astype(np.float32)
    return scaled


def entries(rows: pa.Table, columns: Mapping[str, str]) -> list[Entry]:
    """Return rows of a table as entries, in their order."""
    vectors = vectors_of(rows["vector"]) if "vector" in rows.column_names else None
    found = []
    for at, row in enumerate(
        rows.drop_columns(["vector"] if vectors is not None else []).to_pylist()
    ):
        vector = None if vectors is None or np.isnan(vectors[at, 0]) else vectors[at]
        facts = {name: row[name] for name in columns}
        found.append(
            Entry(row["key"], row["case"], row["patient"], vector, row["words"], facts,
                  row["thumbnail"])
        )  # fmt: skip
    return found


def vectors_of(column: Any) -> Array:
    """Return a column (or an array) of vectors as `(n, d)` float32, a row of NaN for none."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    dimension = column.type.list_size
    found = np.full((len(column), dimension), np.nan, np.float32)
    at = 0
    for chunk in chunks:
        here = found[at : at + len(chunk)]
        flat = np.asarray(chunk.flatten()).reshape(-1, dimension)  # without those of null
        here[np.asarray(chunk.is_valid())] = flat
        at += len(chunk)
    return found


def _checked_text(key: str, name: str, text: str) -> str:
    """Return a text that every engine can keep."""
    if not is_text(text):
        raise DataError(
            f"entry {key!r}: its {name} holds a NUL or half a character, which are no text: remove "
            "them"
        )
    return text


def is_text(text: str) -> bool:
    """Return whether a text can be in an archive: no NUL, nothing that UTF-8 has no bytes for."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def storable(texts: Sequence[str]) -> list[str]:
    """Return the texts that an entry can bear; others are in no row."""
    return [text for text in texts if is_text(text)]


def _checked_fact(key: str, name: str, kind: str, value: Fact) -> Fact:
    if value is None:
        return None
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    fits = {
        "text": isinstance(value, str),
        "integer": whole and -(2**63) <= int(value) < 2**63 if whole else False,
        "float": whole or (isinstance(value, (float, np.floating)) and math.isfinite(value)),
        "boolean": isinstance(value, (bool, np.bool_)),
    }
    if not fits[kind]:
        raise DataError(
            f"entry '{key}': {value!r} cannot be in column '{name}', which is of type {kind}; "
            "give None where it is not known"
        )
    if kind == "text":
        return _checked_text(key, f"column '{name}'", str(value))
    if kind == "float":
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


def of_keys(keys: Sequence[str], found: Sequence[str]) -> list[int]:
    """Return where each of `keys` is among the keys found.

    Raises:
        DataError: a key that is not found.
    """
    place = {key: at for at, key in enumerate(found)}
    unknown = [key for key in keys if key not in place]
    if unknown:
        raise DataError(
            f"the archive has no entry of key '{unknown[0]}'"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + ": index it first"
        )
    return [place[key] for key in keys]
