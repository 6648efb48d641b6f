# SPDX-License-Identifier: Apache-2.0
"""FreeSurfer's MGH and MGZ (gzipped): big-endian, world RAS+, frames become channels.

Source: FreeSurfer's description of the format (version 1). Without `goodRASflag` the format's own
default holds: 1 mm, coronal, centered on the origin.
"""

from __future__ import annotations

import os
import struct

import numpy as np

from vesalius.errors import CorruptFile, GeometryError
from vesalius.io import streams
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike
from vesalius.volume import Source, Volume

_DATA_OFFSET = 284
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_CORONAL = ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))


def read(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one `.mgh` or `.mgz` file."""
    name = os.fspath(path)
    head = streams.head(path, 90)
    if len(head) < 90:
        raise CorruptFile(f"an MGH header has at least 90 bytes, got {len(head)}", path=name)
    version, i, j, k, frames, code = struct.unpack(">6i", head[:24])
    placed = struct.unpack(">h", head[28:30])[0] > 0
    if version != 1 or code not in _DTYPES or min(i, j, k, frames) < 1:
        raise CorruptFile(
            f"an MGH header holds version 1, a type of {sorted(_DTYPES)} and positive sizes, got "
            f"version {version}, type {code}, sizes {(i, j, k, frames)}",
            path=name,
        )
    affine = np.eye(4)
    if placed:
        values = np.frombuffer(head, ">f4", 15, 30).astype(np.float64)
        axes = values[3:12].reshape(3, 3).T * values[:3]
        center = values[12:]
        if not np.isfinite(values).all():
            raise GeometryError("its voxel sizes, cosines and center must be finite", path=name)
    else:
        axes, center = np.array(_CORONAL), np.zeros(3)
    affine[:3, :3] = axes
    affine[:3, 3] = center - axes @ (np.array([i, j, k]) / 2)
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes)) < 1e-12:
        raise GeometryError("its direction cosines or voxel sizes are not invertible", path=name)
    raw = streams.read_array(
        path,
        np.dtype(_DTYPES[code]),
        (frames, k, j, i),
        limits=limits,
        encoding="gzip" if streams.is_gzip(path) else "raw",
        skip=_DATA_OFFSET,
    )
    return Volume(
        raw.transpose(0, 3, 2, 1),
        affine,
        calibrated=placed,
        source=Source(files=(name,), format="mgh", metadata={"goodRASflag": placed}),
    )
