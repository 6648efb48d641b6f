# SPDX-License-Identifier: Apache-2.0
"""DICOM headers for the index: a whole one now and then, the others as what differs from it.

Instances of a series share most attributes, so a header takes about 100 bytes instead of 700. A
base is named by its content; whoever stores a header stores its base in the same transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from itertools import compress
from operator import attrgetter, ne
from typing import Any

from vesalius.io.dicom.header import Header

_FIELDS = fields(Header)
_VALUES = attrgetter(*(field.name for field in _FIELDS))
_PLACES = range(len(_FIELDS))
_LISTS = frozenset(
    n
    for n, field in enumerate(_FIELDS)
    if "tuple" in str(field.type) or "Floats" in str(field.type)
)
_JSON = json.JSONEncoder(separators=(",", ":")).encode
_ID = 16  # hexadecimal digits of a base's name
_MOST = 24  # attributes that may differ; more make a new base


class Packer:
    """Packs headers one after the other; the last base is kept."""

    def __init__(self) -> None:
        self._base: tuple[Any, ...] = ()
        self._id = ""

    def pack(self, header: Header) -> tuple[str, tuple[str, str] | None]:
        """Return the packed header, and the base `(id, JSON)` where it is a new one."""
        values = _VALUES(header)
        changed = list(compress(_PLACES, map(ne, values, self._base)))
        if self._id and len(changed) <= _MOST:
            return self._id + _JSON([[n, values[n]] for n in changed]), None
        text = _JSON(values)
        self._base = values
        self._id = hashlib.blake2b(text.encode(), digest_size=_ID // 2).hexdigest()
        return self._id + "[]", (self._id, text)


class Unpacker:
    """Unpacks headers, given the bases of `Index.bases`."""

    def __init__(self, bases: Mapping[str, str]) -> None:
        self._bases = {name: _row(json.loads(text)) for name, text in bases.items()}

    def unpack(self, packed: str) -> Header:
        """Return the header that `Packer.pack` was given."""
        row = self._bases[packed[:_ID]].copy()
        for n, value in json.loads(packed[_ID:]):
            row[n] = tuple(value) if n in _LISTS and value is not None else value
        return Header(*row)


def base_of(packed: str) -> str:
    """Return the name of the base that a packed header differs from."""
    return packed[:_ID]


def _row(values: list[Any]) -> list[Any]:
    return [
        tuple(value) if n in _LISTS and value is not None else value
        for n, value in enumerate(values)
    ]
