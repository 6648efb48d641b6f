# SPDX-License-Identifier: Apache-2.0
"""Analyze 7.5 pairs (`.hdr` and `.img`), also as SPM 99 and SPM 2 wrote them.

The format states voxel sizes but no orientation. Assumed, as by its authors, SPM and nibabel: i
runs to the patient's left, j to anterior, k to superior; the world's origin is SPM's origin voxel
where one is set, else the middle of the box. SPM's scale factor is applied. A `.mat` file beside
the pair would overrule the header: such a pair is refused rather than misplaced.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat
from vesalius.io import streams
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.io.nifti import pair
from vesalius.types import PathLike
from vesalius.volume import Source, Volume

_HEADER = 348


def read(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one pair, named by either file; axes beyond the third become channels."""
    import nibabel

    header_path, voxel_path = pair(Path(path))
    name = os.fspath(header_path)
    block = streams.head(header_path, _HEADER)
    if len(block) < _HEADER:
        raise CorruptFile(f"an Analyze header has 348 bytes, got {len(block)}", path=name)
    if header_path == voxel_path:
        raise CorruptFile("an Analyze image is a pair of .hdr and .img files", path=name)
    mat = header_path.with_suffix(".mat")
    if mat.is_file():
        raise GeometryError(
            "the .mat file beside it overrules its geometry and is not read; convert the pair to "
            "NIfTI with SPM",
            path=name,
        )
    header = nibabel.Spm2AnalyzeHeader(binaryblock=block, check=False)
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise CorruptFile(f"dim must hold 1 to 7 positive sizes, got {dims}", path=name)
    shape = dims[1 : dims[0] + 1] + [1] * max(0, 3 - dims[0])
    try:
        dtype = np.dtype(header.get_data_dtype())
    except Exception as error:  # nibabel raises its own HeaderDataError, not a builtin
        raise CorruptFile("its datatype code is not one of Analyze's", path=name) from error
    if dtype.kind not in "iuf":
        raise UnsupportedFormat(f"Analyze with {dtype.name} voxels is not read", path=name)
    slope, inter = header.get_slope_inter()
    scaling = slope is not None and (float(slope), float(inter)) != (1.0, 0.0)
    raw = streams.read_array(
        voxel_path,
        dtype,
        tuple(reversed(shape)),
        limits=limits,
        encoding="gzip" if streams.is_gzip(voxel_path) else "raw",
        skip=max(0, int(header["vox_offset"])),
        converted=streams.scaled_dtype(dtype) if scaling else None,
        header=name,
    )
    if scaling:
        raw = streams.scaled(raw, float(slope), float(inter))
    i, j, k = shape[:3]
    stated = [float(size) for size in header["pixdim"][1:4]]
    sizes = [abs(size) if np.isfinite(size) and size else 1.0 for size in stated]
    origin = np.array(header["origin"][:3], dtype=np.float64) - 1
    limit = np.array([i, j, k])
    if not origin.max() > -1 or not ((origin + 1 > -limit) & (origin + 1 < 2 * limit)).all():
        origin = (limit - 1) / 2
    affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ origin
    return Volume(
        raw.reshape(-1, k, j, i).transpose(0, 3, 2, 1),
        affine,
        calibrated=all(size > 0 for size in stated),
        source=Source(
            files=(name, os.fspath(voxel_path)),
            format="analyze",
            metadata={"orientation": "assumed: i runs to the patient's left"},
        ),
    )
