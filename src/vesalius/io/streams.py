# SPDX-License-Identifier: Apache-2.0
"""Raw voxels behind a header: plain or compressed bytes, bounded, straight into one array."""

from __future__ import annotations

import bz2
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from vesalius.errors import CorruptFile, LimitExceeded
from vesalius.io.limits import Limits, fill, inflate
from vesalius.types import Array, PathLike

Encoding: TypeAlias = Literal["raw", "gzip", "zlib", "bzip2"]

_CHUNK = 1 << 18
_SCALE_CHUNK = 1 << 20
# 47 lets zlib tell gzip from zlib by its first bytes; MetaImage writers use both.
_WBITS = {"gzip": 31, "zlib": 47}


def is_gzip(path: PathLike) -> bool:
    """Return whether the file starts with gzip's two magic bytes."""
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def head(path: PathLike, count: int) -> bytes:
    """Return up to `count` first bytes of a file, looking into gzip; shorter at its end."""
    with open(path, "rb") as stream:
        first = stream.read(count)
        if first[:2] != b"\x1f\x8b":
            return first
        stream.seek(0)
        out = bytearray()
        try:
            for piece in inflate(stream, wbits=31, cap=count + 2 * _CHUNK, path=os.fspath(path)):
                out += piece
                if len(out) >= count:
                    break
        except CorruptFile:
            if not out:
                raise
        return bytes(out[:count])


def plain_pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield an uncompressed stream piece by piece."""
    while piece := stream.read(_CHUNK):
        yield piece


def pieces(stream: IO[bytes], encoding: Encoding, *, cap: int, path: str) -> Iterator[bytes]:
    """Yield the decoded bytes of `stream`; more than `cap` of them raise `LimitExceeded`."""
    if encoding == "raw":
        return plain_pieces(stream)
    if encoding == "bzip2":
        return _bunzip(stream, cap=cap, path=path)
    return inflate(stream, wbits=_WBITS[encoding], cap=cap, path=path, what="the voxel stream")


def byte_count(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of an array in exact integers, however large the header's claim."""
    return math.prod(shape) * dtype.itemsize


def read_array(
    path: PathLike,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    limits: Limits,
    encoding: Encoding = "raw",
    start: int = 0,
    skip: int = 0,
    converted: np.dtype[Any] | None = None,
    header: PathLike | None = None,
) -> Array:
    """Read one array of `shape` (slowest axis first) and return it in native byte order.

    `start` is the byte at which the (possibly compressed) stream begins, `skip` the decoded bytes
    to leave out before the voxels. `converted` is the dtype that the caller will make from it: it
    counts toward the limit. Nothing is allocated before the claim has been checked against the
    limits and, for plain data, against the bytes that are there. `header` is the file that
    errors name when the voxels lie in another one.
    """
    name = os.fspath(header if header is not None else path)
    wanted = byte_count(shape, dtype)
    extra = byte_count(shape, converted) if converted is not None else 0
    size = os.stat(path).st_size
    if encoding == "raw" and size < start + skip + wanted:
        raise CorruptFile(
            f"voxel data end after {max(0, size - start - skip):,} of {wanted:,} bytes",
            path=name,
            got=max(0, size - start - skip),
            expected=wanted,
        )
    limits.check(wanted + extra, size, what=f"an image of {_shape(shape)} {dtype.name}", path=name)
    out = np.empty(shape, dtype)
    with open(path, "rb") as stream:
        stream.seek(start + (skip if encoding == "raw" else 0))
        fill(
            pieces(stream, encoding, cap=skip + wanted + 2 * _CHUNK, path=name),
            out,
            skip=0 if encoding == "raw" else skip,
            path=name,
        )
    return native(out)


def native(array: Array) -> Array:
    """Return the array in this machine's byte order, swapped in place."""
    if array.dtype.isnative:
        return array
    return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))


def scaled_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the float type that holds `slope · value + intercept` of a stored dtype."""
    wide = dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize == 4)
    return np.dtype(np.float64 if wide else np.float32)


def scaled(raw: Array, slope: float, intercept: float) -> Array:
    """Return `slope · raw + intercept`, computed in float64 a piece at a time.

    Values beyond float32 become infinite, which `quality` reports as non-finite.
    """
    out = np.empty(raw.shape, scaled_dtype(raw.dtype))
    source, target = raw.reshape(-1), out.reshape(-1)
    for first in range(0, len(source), _SCALE_CHUNK):
        piece = source[first : first + _SCALE_CHUNK].astype(np.float64)
        piece *= slope
        piece += intercept
        with np.errstate(over="ignore"):  # beyond float32: infinity, as IEEE 754 says
            target[first : first + _SCALE_CHUNK] = piece
    return out


def beside(header: PathLike, name: str) -> Path:
    """Return the data file that a header names, which must lie in the header's own folder tree."""
    base = Path(header).resolve().parent
    target = (base / name).resolve()
    if not target.is_relative_to(base):
        raise CorruptFile(
            "its data file lies outside the header's folder, which is refused; put both files "
            "into one folder",
            path=os.fspath(header),
        )
    if not target.is_file():
        raise CorruptFile(
            f"its data file '{Path(name).name}' is not beside it", path=os.fspath(header)
        )
    return target


def _bunzip(stream: IO[bytes], *, cap: int, path: str) -> Iterator[bytes]:
    engine = bz2.BZ2Decompressor()
    produced = 0
    while not engine.eof:
        try:
            data = stream.read(_CHUNK) if engine.needs_input else b""
            if engine.needs_input and not data:
                raise CorruptFile(
                    "the voxel stream ends before its compressed data do", path=path, got=produced
                )
            piece = engine.decompress(data, _CHUNK)
        except OSError as error:
            raise CorruptFile(f"the voxel stream is damaged: {error}", path=path) from error
        produced += len(piece)
        if produced > cap:
            raise LimitExceeded(
                "the voxel stream inflates to more than its header announces",
                path=path,
                allowed=cap,
            )
        if piece:
            yield piece


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in reversed(shape))
