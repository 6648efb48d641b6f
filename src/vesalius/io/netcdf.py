# SPDX-License-Identifier: Apache-2.0
"""The header of a NetCDF classic file (versions 1 and 2), which MINC 1 is: no voxels are touched.

Source: "NetCDF Classic Format Specification" (Unidata). Every count is checked against the bytes
that are there, so a hostile header costs no more memory than the file has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.errors import CorruptFile
from vesalius.types import Array

_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
_TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: names of its dimensions, their lengths, attributes, type and place."""

    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any]
    dtype: np.dtype[Any]
    offset: int

    def values(self, buffer: memoryview, path: str) -> Array:
        """Return the variable's values as a view into the file's bytes."""
        count = math.prod(self.shape)
        if self.offset < 0 or self.offset + count * self.dtype.itemsize > len(buffer):
            raise CorruptFile(
                f"voxel data end after {max(0, len(buffer) - self.offset):,} of "
                f"{count * self.dtype.itemsize:,} bytes",
                path=path,
                got=max(0, len(buffer) - self.offset),
                expected=count * self.dtype.itemsize,
            )
        return np.frombuffer(buffer, self.dtype, count, self.offset).reshape(self.shape)


def variables(buffer: memoryview, path: str) -> dict[str, Variable]:
    """Return the file's variables by name."""
    reader = _Reader(buffer, path)
    version = buffer[3]
    reader.at = 4
    records = reader.integer()
    dimensions = [(reader.name(), reader.integer()) for _ in range(reader.list_of(_DIMENSION))]
    reader.attributes()  # of the whole file
    found = {}
    for _ in range(reader.list_of(_VARIABLE)):
        name = reader.name()
        ids = [reader.integer() for _ in range(reader.count())]
        if any(not 0 <= one < len(dimensions) for one in ids):
            raise CorruptFile("a NetCDF variable names a dimension that is not there", path=path)
        attributes = reader.attributes()
        code = reader.integer()
        reader.integer()  # vsize, which may be wrong for large variables
        offset = reader.integer(8 if version == 2 else 4)
        if code not in _TYPES:
            raise CorruptFile(f"NetCDF type {code} does not exist", path=path)
        sizes = [dimensions[one][1] for one in ids]
        if sizes and sizes[0] == 0:
            raise CorruptFile(
                f"MINC 1 with an unlimited dimension ({records} records) is not read; convert it "
                "with `mincconvert`",
                path=path,
            )
        found[name] = Variable(
            tuple(dimensions[one][0] for one in ids),
            tuple(sizes),
            attributes,
            np.dtype(_TYPES[code]),
            offset,
        )
    return found


class _Reader:
    """A cursor over the header that never reads past the end."""

    def __init__(self, buffer: memoryview, path: str) -> None:
        self._buffer = buffer
        self._path = path
        self.at = 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self._buffer):
            raise CorruptFile("the NetCDF header ends too early", path=self._path)
        self.at += count
        return bytes(self._buffer[self.at - count : self.at])

    def integer(self, width: int = 4) -> int:
        return int.from_bytes(self.take(width), "big")

    def count(self) -> int:
        """Return a number of things that follow, each of at least four bytes."""
        number = self.integer()
        if number * 4 > len(self._buffer) - self.at:
            raise CorruptFile(f"the NetCDF header announces {number} entries", path=self._path)
        return number

    def list_of(self, tag: int) -> int:
        found = self.integer()
        number = self.count()
        if found != tag and (found or number):
            raise CorruptFile(f"the NetCDF header has tag {found} for {tag}", path=self._path)
        return number

    def name(self) -> str:
        return self.padded(self.integer()).decode("latin-1")

    def padded(self, count: int) -> bytes:
        text = self.take(count)
        self.take(min(-count % 4, len(self._buffer) - self.at))
        return text

    def attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.list_of(_ATTRIBUTE)):
            name = self.name()
            code = self.integer()
            number = self.integer()
            if code not in _TYPES:
                raise CorruptFile(f"NetCDF type {code} does not exist", path=self._path)
            dtype = np.dtype(_TYPES[code])
            block = self.padded(number * dtype.itemsize)
            if code == 2:
                found[name] = block.rstrip(b"\0").decode("latin-1")
            else:
                found[name] = np.frombuffer(block, dtype).astype(dtype.newbyteorder("="))
        return found
