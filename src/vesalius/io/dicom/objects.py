# SPDX-License-Identifier: Apache-2.0
"""A DICOM object that is not a plain image (SEG, RTSTRUCT, parametric map), read within limits.

pydicom builds a tree in memory; a small file can describe a large tree. So the items are counted
before, the data set is inflated under a cap, and pixel data are left out (`pixels.decode`).
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vesalius.errors import CorruptFile, LimitExceeded, UnsupportedFormat, VesaliusError
from vesalius.io.dicom.dataset import open_data_set, open_file
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike
from vesalius.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

_ITEM_BYTES = 4096  # what one sequence item takes as a Python object, rounded up
_CHUNK = 1 << 20
_PIXELS = 0x7FE00000


def read_object(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> tuple[Header, Dataset]:
    """Return a file's header and its whole data set, pixel data left out.

    Raises:
        CorruptFile: the elements break their encoding.
        LimitExceeded: the tree, or what it inflates to, is larger than allowed.
    """
    from pydicom.filereader import read_dataset

    name = os.fspath(path)
    header = read_header(path, limits=limits)
    with open_file(path) as (handle, size):
        data_set = open_data_set(
            lambda offset, count: os.pread(handle, count, offset), size, limits=limits, path=name
        )
        offset, pieces = data_set.start, []
        end = header.pixel_offset
        while end is None or offset < end:
            piece = data_set.take(offset, _CHUNK if end is None else min(_CHUNK, end - offset))
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
    raw = b"".join(pieces)
    item = b"\xff\xfe\xe0\x00" if data_set.order.big else b"\xfe\xff\x00\xe0"
    items = raw.count(item)
    if items * _ITEM_BYTES > limits.allowed(size):
        raise LimitExceeded(
            f"the data set holds {items:,} sequence items, about {items * _ITEM_BYTES >> 20:,} "
            f"MiB as objects, allowed are {limits.allowed(size) >> 20:,} MiB; if you trust it, "
            "raise the limit (--max-image-memory, or Limits(floor=…))",
            path=name,
            items=items,
        )
    with parsing(name):
        found = read_dataset(
            io.BytesIO(raw),
            is_implicit_VR=not data_set.order.explicit,
            is_little_endian=not data_set.order.big,
            stop_when=lambda tag, _vr, _length: tag >= _PIXELS,
        )
    return header, found


@contextmanager
def parsing(path: str) -> Iterator[None]:
    """Turn what pydicom raises on broken elements into `CorruptFile`.

    pydicom parses an element when it is first touched and raises whatever its parsers raise; what
    it warns of is checked by whoever uses the value.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\b")
        try:
            yield
        except VesaliusError:
            raise
        except Exception as error:
            raise CorruptFile(
                f"an element of the data set cannot be parsed ({type(error).__name__})", path=path
            ) from error


def beside(reference: Volume | None, limits: Limits) -> Limits:
    """Return limits under which labels on the grid of an image already in memory may be read."""
    if reference is None:
        return limits
    voxels = reference.data[0].size
    return replace(limits, floor=max(limits.floor, 16 * voxels + reference.data.nbytes))


def require_class(header: Header, allowed: dict[str, str], *, path: str) -> str:
    """Return the name of a file's SOP class among `allowed`, or raise `UnsupportedFormat`."""
    if header.sop_class not in allowed:
        raise UnsupportedFormat(
            f"expected {' or '.join(allowed.values())}, got SOP class {header.sop_class}",
            path=path,
            sop_class=header.sop_class,
        )
    return allowed[header.sop_class]


def refuse_tiles(header: Header, *, path: str) -> None:
    """Raise `UnsupportedFormat` where frames are tiles of one large plane (slide microscopy)."""
    if header.tile_columns and header.tile_rows:
        raise UnsupportedFormat(
            "tiled objects of slide microscopy are not supported; convert the total pixel matrix "
            "to TIFF",
            path=path,
        )
