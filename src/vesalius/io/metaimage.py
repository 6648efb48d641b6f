# SPDX-License-Identifier: Apache-2.0
"""MetaImage (`.mha`, `.mhd`), read and written; world LPS, as ITK writes it.

Source: the MetaIO documentation (Kitware). Row n of `TransformMatrix` is the world direction of
axis n. `MET_LONG` has four bytes, as in MetaIO. A fourth axis and element channels become channels.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.files import write_atomically
from vesalius.geometry import LPS_TO_RAS
from vesalius.io import streams
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Affine, Array, PathLike
from vesalius.volume import Source, Volume

_MAX_HEADER = 1 << 16
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_WRITTEN = {code: name for name, code in reversed(_TYPES.items())}


def read(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one MetaImage with its voxels inside or in one file beside it."""
    name = os.fspath(path)
    fields, length = _header(path)
    rank = int(_values(fields, "NDims", name, 1)[0])
    if not 2 <= rank <= 4:
        raise UnsupportedFormat(f"MetaImage with {rank} axes is not read (2 to 4 are)", path=name)
    sizes = [int(value) for value in _values(fields, "DimSize", name, rank)]
    samples = _whole(fields, "ElementNumberOfChannels", 1, name)
    if min(*sizes, samples) < 1:
        raise CorruptFile(f"DimSize must be positive, got {sizes}", path=name)
    kind = fields.get("ElementType", "").upper()
    if kind not in _TYPES:
        raise UnsupportedFormat(f"MetaImage of type {kind!r} is not read", path=name)
    if fields.get("BinaryData", "True").lower() == "false":
        raise UnsupportedFormat("MetaImage with voxels as text is not read", path=name)
    big = _truth(fields, "BinaryDataByteOrderMSB") or _truth(fields, "ElementByteOrderMSB")
    dtype = np.dtype((">" if big else "<") + _TYPES[kind])
    file, start = Path(path), length
    element = fields["ElementDataFile"]
    if element.upper() != "LOCAL":
        if element.upper().startswith("LIST") or "%" in element:
            raise UnsupportedFormat(
                "MetaImage whose slices lie in several files is not read; join them into one .mha",
                path=name,
            )
        file, start = streams.beside(path, element), 0
    shape = (*reversed(sizes), samples)
    skip = _whole(fields, "HeaderSize", 0, name)
    if skip == -1:
        start, skip = max(0, file.stat().st_size - streams.byte_count(shape, dtype)), 0
    raw = streams.read_array(
        file,
        dtype,
        shape,
        limits=limits,
        encoding="zlib" if _truth(fields, "CompressedData") else "raw",
        start=start + max(0, skip),
        header=name,
    )
    i, j, k = (*sizes, 1)[:3]
    data = raw.reshape(-1, k, j, i, samples).transpose(0, 4, 3, 2, 1)
    affine, calibrated = _affine(fields, rank, name)
    return Volume(
        data.reshape(-1, i, j, k) if len(data) > 1 and samples > 1 else _merged(data),
        affine,
        calibrated=calibrated,
        source=Source(
            files=tuple(dict.fromkeys((name, os.fspath(file)))),
            format="metaimage",
            metadata={
                key: fields[key] for key in ("AnatomicalOrientation", "Modality") if key in fields
            },
        ),
    )


def write(volume: Volume, path: PathLike) -> Path:
    """Write `.mha` (zlib-compressed, local data), atomically; channels are interleaved."""
    data = volume.data
    if data.dtype == bool:
        data = data.view(np.uint8)
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    code = f"{data.dtype.kind}{data.dtype.itemsize}"
    if code not in _WRITTEN:
        raise UsageError(f"MetaImage holds integers and floats up to 64 bits, got {data.dtype}")
    if not Path(path).name.lower().endswith(".mha"):
        raise UsageError(f"a MetaImage file is written as .mha, got '{Path(path).name}'")
    spacing = np.asarray(volume.spacing)
    affine = LPS_TO_RAS @ volume.affine
    directions = affine[:3, :3] / spacing
    engine = zlib.compressobj(6)
    little = data.dtype.newbyteorder("<")
    pieces = [
        engine.compress(np.ascontiguousarray(data[..., k].transpose(2, 1, 0), little).data)
        for k in range(data.shape[3])
    ]
    pieces.append(engine.flush())
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {sum(map(len, pieces))}",
        f"TransformMatrix = {_row(directions.T.ravel())}",
        f"Offset = {_row(affine[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_row(spacing)}",
        f"DimSize = {' '.join(map(str, volume.shape))}",
        *([f"ElementNumberOfChannels = {len(data)}"] if len(data) > 1 else []),
        f"ElementType = {_WRITTEN[code]}",
        "ElementDataFile = LOCAL",
        "",
    ]

    def put(stream: IO[bytes]) -> None:
        stream.write("\n".join(lines).encode("ascii"))
        for piece in pieces:
            stream.write(piece)

    return write_atomically(path, put)


def _merged(data: Array) -> Array:
    """Return `(time, sample, i, j, k)`, one of its leading axes of length 1, without a copy."""
    return data[0] if len(data) == 1 else data[:, 0]


def _header(path: PathLike) -> tuple[dict[str, str], int]:
    """Return the fields and the bytes up to the local voxels."""
    name = os.fspath(path)
    with open(path, "rb") as stream:
        block = stream.read(_MAX_HEADER)
    fields: dict[str, str] = {}
    at = 0
    for line in re.finditer(rb"([^\r\n]*)\r?\n|([^\r\n]+)$", block):
        at = line.end()
        text = (line[1] if line[1] is not None else line[2]).decode("latin-1")
        key, found, value = text.partition("=")
        if not found:
            if text.strip():
                raise CorruptFile(f"the header line {text[:40]!r} is no 'Key = value'", path=name)
            continue
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, at
    raise CorruptFile("the header ends without ElementDataFile", path=name)


def _whole(fields: Mapping[str, str], key: str, default: int, name: str) -> int:
    if key not in fields:
        return default
    return int(_values(fields, key, name, 1)[0])


def _values(fields: Mapping[str, str], key: str, name: str, count: int) -> list[float]:
    try:
        values = [float(value) for value in fields[key].split()]
    except (KeyError, ValueError) as error:
        raise CorruptFile(
            f"{key} must be {count} numbers, got {fields.get(key)!r}", path=name
        ) from error
    if len(values) != count or not np.isfinite(values).all():
        raise CorruptFile(f"{key} must be {count} numbers, got {fields[key]!r}", path=name)
    return values


def _truth(fields: Mapping[str, str], key: str) -> bool:
    return fields.get(key, "False").lower() in ("true", "1")


def _affine(fields: Mapping[str, str], rank: int, name: str) -> tuple[Affine, bool]:
    """Return the affine (RAS+) and whether the file states voxel sizes."""
    sizes = next((key for key in ("ElementSpacing", "ElementSize") if key in fields), "")
    spacing = _values(fields, sizes, name, rank) if sizes else [1.0] * rank
    origin = next((key for key in ("Offset", "Position", "Origin") if key in fields), "")
    offset = _values(fields, origin, name, rank) if origin else [0.0] * rank
    turn = next(
        (key for key in ("TransformMatrix", "Rotation", "Orientation") if key in fields), ""
    )
    directions = np.eye(3)
    used = min(rank, 3)
    if turn:
        matrix = np.array(_values(fields, turn, name, rank * rank)).reshape(rank, rank)
        directions[:used, :used] = matrix[:used, :used].T
    affine = np.eye(4)
    affine[:3, :3] = directions * (*spacing, 1.0)[:3]
    affine[:used, 3] = offset[:used]
    affine = LPS_TO_RAS @ affine
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError("its TransformMatrix or ElementSpacing is not invertible", path=name)
    return affine, bool(sizes)


def _row(values: Array) -> str:
    return " ".join(repr(float(value)) for value in values)
