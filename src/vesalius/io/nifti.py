# SPDX-License-Identifier: Apache-2.0
"""NIfTI-1 and NIfTI-2: single files, gzipped files and `.hdr`/`.img` pairs.

Sources: NIfTI-1.1 (Cox et al. 2004, nifti1.h) and NIfTI-2 (nifti2.h). NIfTI's world is RAS+, as
is ours. The affine is the sform where its code is positive, else the qform, else the voxel sizes
alone. Voxels keep their integer type unless `scl_slope`/`scl_inter` change them.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.files import write_atomically
from vesalius.io import streams
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Affine, Array, PathLike
from vesalius.volume import LabelMap, Source, Volume

_INTENT_LABEL = 1002
_COMMENT = 6  # the extension code for plain text
_MAX_EXTENSIONS = 1 << 20
_TO_MM = {1: 1000.0, 3: 0.001}  # xyzt_units: meter, micrometer
_COLORS = {128: ("red", "green", "blue"), 2304: ("red", "green", "blue", "alpha")}


def read(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one NIfTI file (or either file of a pair).

    Axes beyond the third (time, vector components) become channels, the first of them fastest.
    Returns a `LabelMap` where the header's intent is NIFTI_INTENT_LABEL and voxels are integers.
    """
    header_path, voxel_path = pair(Path(path))
    name = os.fspath(header_path)
    header, extensions = _header(header_path)
    shape = _shape(header, name)
    code = int(header["datatype"])
    colors = _COLORS.get(code, ())
    dtype = _dtype(header, code, name)
    slope, inter = _scaling(header)
    affine = _affine(header, name)
    if header_path == voxel_path:
        offset = float(header["vox_offset"])
        offset = offset if offset else float(header.single_vox_offset)
        if offset < header.sizeof_hdr:
            raise CorruptFile(
                f"vox_offset {offset:g} lies within the header of {header.sizeof_hdr} bytes",
                path=name,
            )
    else:
        offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < 0:
        raise CorruptFile(f"vox_offset must be zero or positive, got {offset}", path=name)
    scaling = (slope, inter) != (1.0, 0.0) and not colors
    raw = streams.read_array(
        voxel_path,
        dtype,
        (*reversed(shape), len(colors)) if colors else tuple(reversed(shape)),
        limits=limits,
        encoding="gzip" if streams.is_gzip(voxel_path) else "raw",
        skip=int(offset),
        converted=streams.scaled_dtype(dtype) if scaling else None,
        header=name,
    )
    if scaling:
        raw = streams.scaled(raw, slope, inter)
    i, j, k = shape[:3]
    if colors:
        raw = raw.reshape(-1, k, j, i, len(colors))
        data = raw.transpose(0, 4, 3, 2, 1).reshape(-1, i, j, k)
        channels = colors if len(data) == len(colors) else ()
    else:
        data = raw.reshape(-1, k, j, i).transpose(0, 3, 2, 1)
        channels = ()
    source = Source(
        files=tuple(dict.fromkeys((name, os.fspath(voxel_path)))),
        format="nifti",
        metadata=_metadata(header),
    )
    if int(header["intent_code"]) == _INTENT_LABEL and data.dtype.kind in "iu":
        return LabelMap(data, affine, source=source, names=_names(extensions, name))
    return Volume(data, affine, channels=channels, source=source)


def read_names(path: PathLike) -> dict[int, str]:
    """Return the structures' names kept in the header's extensions, empty where there are none.

    Understands this package's JSON comment and the label table of Caret/TotalSegmentator.
    """
    header_path, _ = pair(Path(path))
    return _names(_header(header_path)[1], os.fspath(header_path))


def write(volume: Volume, path: PathLike) -> Path:
    """Write `.nii` or `.nii.gz`, atomically; channels become the fourth axis.

    The sform holds the affine; the qform too, unless the affine is sheared. NIfTI-2 is used where
    an axis is longer than 32,767. A LabelMap carries NIFTI_INTENT_LABEL and its names in a
    comment extension (JSON).
    """
    import nibabel

    target = Path(path)
    name = target.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"a NIfTI file ends in .nii or .nii.gz, got '{target.name}'")
    data = _storable(volume.data)
    shape = data.shape[1:] if len(data) == 1 else (*data.shape[1:], len(data))
    kind = nibabel.Nifti1Header if max(shape) <= 32767 else nibabel.Nifti2Header
    header = kind()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm", "sec" if len(data) > 1 else 0)
    header.set_sform(volume.affine, code=1)
    header.set_qform(volume.affine, code=0 if _sheared(volume.affine) else 1, strip_shears=True)
    header.set_slope_inter(1, 0)
    extension = b""
    if isinstance(volume, LabelMap):
        header["intent_code"] = _INTENT_LABEL
        header["intent_name"] = b"Labels"
        extension = _extension(volume.names)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset + len(extension)

    def put(stream: IO[bytes]) -> None:
        stream.write(header.binaryblock)
        stream.write(bytes([1 if extension else 0, 0, 0, 0]))
        stream.write(extension)
        for channel in data:
            for k in range(channel.shape[2]):
                stream.write(np.ascontiguousarray(channel[:, :, k].T).data)

    def write_stream(stream: IO[bytes]) -> None:
        if not name.endswith(".gz"):
            put(stream)
            return
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            put(packed)  # type: ignore[arg-type]  # GzipFile is a binary stream

    return write_atomically(target, write_stream)


def pair(path: Path) -> tuple[Path, Path]:
    """Return the header's and the voxels' file; the same for a single file."""
    name = path.name.lower()
    for one, other in ((".hdr", ".img"), (".img", ".hdr")):
        for packed in ("", ".gz"):
            if not name.endswith(one + packed):
                continue
            stem = path.name[: -len(one + packed)]
            found = next(
                (
                    candidate
                    for suffix in (other + packed, other, other + ".gz", other.upper())
                    if (candidate := path.with_name(stem + suffix)).is_file()
                ),
                None,
            )
            if found is None:
                raise CorruptFile(f"its '{other}' file is not beside it", path=os.fspath(path))
            return (path, found) if one == ".hdr" else (found, path)
    return path, path


def _header(path: Path) -> tuple[Any, bytes]:
    """Return nibabel's header of the file and the raw bytes of its extensions."""
    import nibabel

    block = streams.head(path, 544)
    size = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    kind = nibabel.Nifti2Header if 540 in size else nibabel.Nifti1Header
    length = kind.template_dtype.itemsize
    if len(block) < length:
        raise CorruptFile(
            f"a NIfTI header has {length} bytes, got {len(block)}", path=os.fspath(path)
        )
    if not size & {348, 540}:
        raise CorruptFile(
            f"sizeof_hdr must be 348 or 540, got {int.from_bytes(block[:4], 'little')}",
            path=os.fspath(path),
        )
    header = kind(binaryblock=block[:length], check=False)
    if len(block) < length + 4 or not block[length]:
        return header, b""
    offset = float(header["vox_offset"])
    end = int(offset) if math.isfinite(offset) and offset > length + 4 else _MAX_EXTENSIONS
    return header, streams.head(path, min(end, _MAX_EXTENSIONS))[length + 4 :]


def _shape(header: Any, name: str) -> tuple[int, ...]:
    dims = [int(n) for n in header["dim"]]
    rank = dims[0]
    if not 1 <= rank <= 7 or any(n < 1 for n in dims[1 : rank + 1]):
        raise CorruptFile(
            f"dim must hold 1 to 7 positive sizes, got {dims[: max(2, min(rank, 7) + 1)]}",
            path=name,
            dim=dims,
        )
    shape = dims[1 : rank + 1]
    return tuple(shape + [1] * (3 - len(shape)))


def _dtype(header: Any, code: int, name: str) -> np.dtype[Any]:
    if code in _COLORS:
        return np.dtype(np.uint8)
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as error:  # nibabel raises its own HeaderDataError, not a builtin
        raise CorruptFile(f"datatype code {code} is not one of NIfTI's", path=name) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnsupportedFormat(
            f"NIfTI with {dtype.name} voxels is not read: store magnitude, or real and imaginary "
            "part as two channels of float32",
            path=name,
        )
    return dtype


def _scaling(header: Any) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means that none is set (nifti1.h)."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    return slope, inter if math.isfinite(inter) else 0.0


def _affine(header: Any, name: str) -> Affine:
    # nifti1.h: voxel sizes are positive, and a pixdim[0] (qfac) of 0 stands for 1.
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except Exception as error:  # nibabel raises ValueError or HeaderDataError on a bad quaternion
        raise GeometryError(f"its qform is not a rotation: {error}", path=name) from error
    unit = int(header["xyzt_units"]) & 7
    affine[:3] *= _TO_MM.get(unit, 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        which = "sform" if int(header["sform_code"]) > 0 else "qform or pixdim"
        raise GeometryError(
            f"its {which} is not an invertible affine; mend the header", path=name, which=which
        )
    return affine


def _metadata(header: Any) -> dict[str, object]:
    return {
        "sform_code": int(header["sform_code"]),
        "qform_code": int(header["qform_code"]),
        "xyzt_units": int(header["xyzt_units"]),
        "intent_code": int(header["intent_code"]),
        "dim": [int(n) for n in header["dim"]],
        "stored_dtype": np.dtype(header.get_data_dtype()).name,
    }


def _names(extensions: bytes, path: str) -> dict[int, str]:
    first = 0
    while first + 8 <= len(extensions):
        size = int.from_bytes(extensions[first : first + 4], "little")
        code = int.from_bytes(extensions[first + 4 : first + 8], "little")
        if size < 16 or first + size > len(extensions):
            break
        text = extensions[first + 8 : first + size].rstrip(b"\0").decode("utf-8", "replace")
        if code == _COMMENT and text.startswith('{"label_names"'):
            try:
                names = json.loads(text)["label_names"]
                return {int(value): str(label) for value, label in names.items()}
            except (ValueError, KeyError, AttributeError) as error:
                raise CorruptFile(
                    "the label names in its extension are damaged", path=path
                ) from error
        found = re.findall(r'<Label\s[^>]*Key="(-?\d+)"[^>]*>(?:<!\[CDATA\[)?([^\]<]*)', text)
        if found:
            return {int(value): name for value, name in found}
        first += size
    return {}


def _extension(names: Mapping[int, str]) -> bytes:
    if not names:
        return b""
    text = json.dumps({"label_names": {str(value): name for value, name in names.items()}})
    body = text.encode("utf-8")
    size = -(-(len(body) + 8) // 16) * 16
    return size.to_bytes(4, "little") + _COMMENT.to_bytes(4, "little") + body.ljust(size - 8, b"\0")


def _storable(data: Array) -> Array:
    if data.dtype == bool:
        return data.view(np.uint8)
    if data.dtype == np.float16:
        return data.astype(np.float32)
    if data.dtype.kind not in "iuf" or data.dtype.itemsize > 8:
        raise UsageError(f"NIfTI holds integers and floats up to 64 bits, got {data.dtype}")
    return data if data.dtype.byteorder != ">" else data.astype(data.dtype.newbyteorder("<"))


def _sheared(affine: Affine) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-5)
