# SPDX-License-Identifier: Apache-2.0
"""Bounded reading of HDF5 datasets: our own capped inflate of each chunk, and no foreign files.

HDF5's deflate filter lets a chunk inflate without limit, and links or external storage may point to
any file of the machine. So chunks are fetched raw and inflated here, and such links are refused.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from vesalius.errors import CorruptFile, UnsupportedFormat
from vesalius.io.limits import Limits, inflate
from vesalius.types import Array

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3


def dataset(file: Any, path_inside: str, path: str) -> Any:
    """Return a dataset reached through hard links only; `CorruptFile` where there is none."""
    import h5py

    item = file
    for part in path_inside.split("/"):
        if not isinstance(item, h5py.Group) or part not in item:
            raise CorruptFile(f"it is no MINC file: '{path_inside}' is missing", path=path)
        if not isinstance(item.get(part, getlink=True), h5py.HardLink):
            raise UnsupportedFormat("HDF5 with links to other files is refused", path=path)
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise CorruptFile(f"it is no MINC file: '{path_inside}' is no dataset", path=path)
    if item.external or item.is_virtual:
        raise UnsupportedFormat("HDF5 with voxels in other files is refused", path=path)
    if item.dtype.kind not in "iuf":
        raise UnsupportedFormat(f"HDF5 with values of type {item.dtype} is not read", path=path)
    return item


def text(item: Any, attribute: str) -> str:
    """Return a text attribute, or ``."""
    value = item.attrs.get(attribute, "")
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).rstrip(
        "\0"
    )


def values(item: Any, limits: Limits, size: int, path: str) -> Array:
    """Return a dataset's values in native byte order; the caller has checked its shape's bytes."""
    out = np.empty(item.shape, item.dtype)
    if item.chunks is None:
        if item.shape == ():
            out[()] = item[()]
        elif item.size:
            item.read_direct(out)
        return _native(out)
    codes = [item.id.get_create_plist().get_filter(n) for n in range(_filters(item))]
    known = [code for code, *_ in codes]
    if [c for c in known if c not in (_DEFLATE, _SHUFFLE, _FLETCHER32)] or known.count(
        _DEFLATE
    ) > 1:
        raise UnsupportedFormat(
            f"HDF5 compressed by filters {known} is not read: rewrite it with gzip", path=path
        )
    chunk_bytes = math.prod(item.chunks) * item.dtype.itemsize
    limits.check(out.nbytes + 3 * chunk_bytes, size, what="an image and its chunks", path=path)
    out[...] = item.fillvalue
    for number in range(item.id.get_num_chunks()):
        info = item.id.get_chunk_info(number)
        if info.size > size * 2 + limits.floor:
            raise CorruptFile(f"a chunk claims {info.size:,} bytes", path=path)
        mask, raw = item.id.read_direct_chunk(info.chunk_offset)
        chunk = _decoded(raw, known, mask, item, chunk_bytes, path)
        place = tuple(
            slice(start, min(start + length, whole))
            for start, length, whole in zip(info.chunk_offset, item.chunks, item.shape, strict=True)
        )
        out[place] = chunk[tuple(slice(0, p.stop - p.start) for p in place)]
    return _native(out)


def _filters(item: Any) -> int:
    return int(item.id.get_create_plist().get_nfilters())


def _decoded(
    raw: bytes, codes: list[int], mask: int, item: Any, chunk_bytes: int, path: str
) -> Array:
    """Undo the filters, last first; `mask` names the ones that this chunk left out."""
    block = raw
    for number, code in reversed(list(enumerate(codes))):
        if mask >> number & 1:
            continue
        if code == _FLETCHER32:
            block = block[:-4]
        elif code == _DEFLATE:
            block = b"".join(
                inflate(io.BytesIO(block), wbits=15, cap=chunk_bytes, path=path, what="a chunk")
            )
        elif code == _SHUFFLE:
            width = item.dtype.itemsize
            block = np.frombuffer(block, np.uint8).reshape(width, -1).T.tobytes()
    if len(block) != chunk_bytes:
        raise CorruptFile(
            f"a chunk holds {len(block):,} of {chunk_bytes:,} bytes",
            path=path,
            got=len(block),
            expected=chunk_bytes,
        )
    return np.frombuffer(block, item.dtype).reshape(item.chunks)


def _native(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
