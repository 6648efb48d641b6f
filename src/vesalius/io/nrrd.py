# SPDX-License-Identifier: Apache-2.0
"""NRRD: attached (`.nrrd`) and detached (`.nhdr`), raw, gzip, bzip2 or text, read and written.

Source: Kindlmann, "Definition of NRRD File Format" (NRRD0001 to NRRD0005), and 3D Slicer's keys for
segmentations (`Segment0_Name`, `Segment0_LabelValue`, `Segment0_Layer`). Spaces RAS, LAS and LPS
are converted to RAS+; an image without a named space counts as LPS, as in ITK. An axis without a
direction (kind list, vector, RGB-color, …) becomes the channels.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.files import write_atomically
from vesalius.geometry import LPS_TO_RAS
from vesalius.io import streams
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Affine, Array, PathLike
from vesalius.volume import LabelMap, Source, Volume

_MAX_HEADER = 1 << 20
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_WRITTEN = {code: names.split(", ")[-1 if "8_t" in names else 0] for code, names in _TYPES.items()}
_ENCODINGS: dict[str, streams.Encoding] = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
}  # fmt: skip
_NO_VECTOR = re.compile(r"none|\(\s*nan\s*(,\s*nan\s*)*\)", re.IGNORECASE)
_IN_SPACE = frozenset({"domain", "space", "none", "???"})  # kinds of axes that may be spatial
_TEXT = frozenset({"text", "txt", "ascii"})
_SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Header:
    fields: Mapping[str, str]  # `field: value`
    keys: Mapping[str, str]  # `key:=value`
    length: int  # bytes before the data


def read(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one NRRD file; a 3D Slicer segmentation becomes a `LabelMap` with its names."""
    name = os.fspath(path)
    header = _header(path)
    fields = header.fields
    sizes = _numbers(fields, "sizes", name, int)
    if str(len(sizes)) != fields.get("dimension", "").strip() or min(sizes, default=0) < 1:
        raise CorruptFile(
            f"sizes must be positive, one for each dimension, got {sizes} for dimension "
            f"{fields.get('dimension')!r}",
            path=name,
        )
    kind = fields.get("type", "").strip().lower()
    if kind not in _DTYPES:
        raise UnsupportedFormat(f"NRRD of type {kind!r} is not read", path=name)
    order = ">" if fields.get("endian", "little").strip().lower() == "big" else "<"
    dtype = np.dtype(order + _DTYPES[kind])
    raw = _voxels(path, header, dtype, tuple(reversed(sizes)), limits)
    spatial, affine, calibrated = _grid(fields, sizes, name)
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    last = len(sizes) - 1
    data = raw.transpose([last - axis for axis in (*reversed(others), *spatial)])
    data = data.reshape(-1, *[sizes[axis] for axis in spatial], *[1] * (3 - len(spatial)))
    files = [name]
    if "data file" in fields or "datafile" in fields:
        files.append(os.fspath(_data_file(path, fields)[0]))
    source = Source(
        files=tuple(files),
        format="nrrd",
        metadata={
            key: fields[key] for key in ("space", "kinds", "measurement frame") if key in fields
        },
    )
    segments = _segments(header.keys, name)
    if segments and data.dtype.kind in "iu":
        data, names = _named(data, segments)
        return LabelMap(data, affine, calibrated=calibrated, source=source, names=names)
    kinds = fields.get("kinds", "").lower()
    channels = (
        ("red", "green", "blue", "alpha")[: len(data)]
        if re.search(r"rgba?-color", kinds) and len(data) in (3, 4)
        else ()
    )
    return Volume(data, affine, channels=channels, calibrated=calibrated, source=source)


def write(volume: Volume, path: PathLike) -> Path:
    """Write `.nrrd` (gzip, space LPS), atomically; a `LabelMap` carries 3D Slicer's names.

    Several channels become a first axis of kind `list` (`vector` for an image).
    """
    data = volume.data
    if data.dtype == bool:
        data = data.view(np.uint8)
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    code = f"{data.dtype.kind}{data.dtype.itemsize}"
    if code not in _WRITTEN:
        raise UsageError(f"NRRD holds integers and floats up to 64 bits, got {data.dtype}")
    if not Path(path).name.lower().endswith(".nrrd"):
        raise UsageError(f"a NRRD file ends in .nrrd, got '{Path(path).name}'")
    affine = LPS_TO_RAS @ volume.affine
    several = len(data) > 1
    labels = isinstance(volume, LabelMap)
    sizes = (len(data), *volume.shape) if several else volume.shape
    columns = ["none"] * several + [_vector(affine[:3, axis]) for axis in range(3)]
    lines = [
        "NRRD0005",
        f"type: {_WRITTEN[code]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(columns)}",
        f"kinds: {('list ' if labels else 'vector ') * several}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(affine[:3, 3])}",
        *(_segment_keys(volume) if isinstance(volume, LabelMap) else ()),
        "",
        "",
    ]

    def put(stream: IO[bytes]) -> None:
        stream.write("\n".join(lines).encode("utf-8"))
        little = data.dtype.newbyteorder("<")
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            for k in range(data.shape[3]):
                packed.write(np.ascontiguousarray(data[..., k].transpose(2, 1, 0), little).data)

    return write_atomically(path, put)


def _header(path: PathLike) -> _Header:
    name = os.fspath(path)
    with open(path, "rb") as stream:
        block = stream.read(_MAX_HEADER)
    if not block.startswith(b"NRRD000"):
        raise CorruptFile("a NRRD file starts with its magic 'NRRD000'", path=name)
    end = re.search(rb"\r?\n\r?\n", block)
    length = end.end() if end else len(block)
    if not end and len(block) == _MAX_HEADER:
        raise CorruptFile("the NRRD header does not end within 1 MiB", path=name)
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in block[:length].decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#") or not line.strip():
            continue
        key, found, value = line.partition(":=")
        if found:
            keys[key.strip()] = value
            continue
        key, found, value = line.partition(":")
        if not found:
            raise CorruptFile(f"the header line {line[:60]!r} is neither field nor key", path=name)
        fields[key.strip().lower()] = value.strip()
        if key.strip().lower() in ("data file", "datafile") and value.strip().startswith("LIST"):
            break  # names of files follow
    return _Header(fields, keys, length)


def _data_file(path: PathLike, fields: Mapping[str, str]) -> tuple[Path, int]:
    """Return the file that holds the voxels and the byte at which they start."""
    named = fields.get("data file", fields.get("datafile", ""))
    if named.upper().startswith("LIST") or "%" in named:
        raise UnsupportedFormat(
            "NRRD whose voxels lie in several files is not read; join them, for example with "
            "`unu save`",
            path=os.fspath(path),
        )
    return streams.beside(path, named), 0


def _voxels(
    path: PathLike, header: _Header, dtype: np.dtype[Any], shape: tuple[int, ...], limits: Limits
) -> Array:
    name = os.fspath(path)
    fields = header.fields
    detached = "data file" in fields or "datafile" in fields
    file, start = _data_file(path, fields) if detached else (Path(path), header.length)
    encoding = fields.get("encoding", "raw").strip().lower()
    lines = _whole(fields.get("line skip", fields.get("lineskip", "0")), "line skip", name)
    skip = _whole(fields.get("byte skip", fields.get("byteskip", "0")), "byte skip", name)
    if encoding in _TEXT:
        return _text(file, start, dtype, shape, limits, name)
    if encoding not in _ENCODINGS:
        raise UnsupportedFormat(f"NRRD with encoding {encoding!r} is not read", path=name)
    if skip == -1 and encoding == "raw":
        start, skip = max(0, file.stat().st_size - streams.byte_count(shape, dtype)), 0
    if lines:
        start = _after_lines(file, start, lines)
    if skip < 0 or lines < 0:
        raise CorruptFile(f"byte skip {skip} and line skip {lines} contradict", path=name)
    return streams.read_array(
        file,
        dtype,
        shape,
        limits=limits,
        encoding=_ENCODINGS[encoding],
        start=start,
        skip=skip,
        header=name,
    )


def _after_lines(file: Path, start: int, lines: int) -> int:
    with open(file, "rb") as stream:
        stream.seek(start)
        for _ in range(lines):
            if not stream.readline(_MAX_HEADER):
                break
        return stream.tell()


def _text(
    file: Path, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], limits: Limits, name: str
) -> Array:
    size = file.stat().st_size
    limits.check(
        streams.byte_count(shape, dtype) + 10 * size, size, what="an image as text", path=name
    )
    with open(file, "rb") as stream:
        stream.seek(start)
        words = stream.read().replace(b",", b" ").split()
    try:
        values = np.array(words, dtype="S").astype(np.float64)
        return values.astype(dtype.newbyteorder("=")).reshape(shape)
    except ValueError as error:
        raise CorruptFile(
            f"the text holds {len(words)} values, {np.prod(shape)} numbers were expected", path=name
        ) from error


def _grid(fields: Mapping[str, str], sizes: list[int], name: str) -> tuple[list[int], Affine, bool]:
    """Return the spatial axes, the affine (RAS+) and whether millimeters are stated."""
    space = fields.get("space", "").strip().lower()
    if space and space not in _SPACES:
        raise GeometryError(
            f"its space {space!r} is not one of RAS, LAS and LPS; convert it", path=name
        )
    signs = _SPACES.get(space, (-1, -1, 1))
    affine = np.eye(4)
    if "space directions" in fields:
        found = re.findall(r"none|\([^)]*\)", fields["space directions"], re.IGNORECASE)
        if len(found) != len(sizes):
            raise CorruptFile(
                f"space directions must name {len(sizes)} axes, got {len(found)}", path=name
            )
        spatial = [axis for axis, text in enumerate(found) if not _NO_VECTOR.fullmatch(text)]
        vectors = [_parsed(found[axis], name) for axis in spatial]
        origin = _parsed(fields["space origin"], name) if "space origin" in fields else [0.0] * 3
        calibrated = True
    else:
        kinds = fields.get("kinds", "").lower().split()
        spatial = [n for n in range(len(sizes)) if n >= len(kinds) or kinds[n] in _IN_SPACE]
        steps = _along(fields, "spacings", spatial, name)
        calibrated = bool(np.isfinite(steps).all())
        vectors = [[0.0] * n + [s if np.isfinite(s) else 1.0] for n, s in enumerate(steps)]
        if "space origin" in fields:
            origin = _parsed(fields["space origin"], name)
        else:
            origin = _first_samples(fields, spatial, [vector[-1] for vector in vectors], name)
    if not 1 <= len(spatial) <= 3:
        raise UnsupportedFormat(
            f"NRRD with {len(spatial)} spatial axes is not read (1 to 3 are)", path=name
        )
    for column, vector in enumerate(vectors):
        affine[: len(vector), column] = vector[:3]
    if len(spatial) == 2 and abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2]) or 1.0
    affine[: len(origin), 3] = origin[:3]
    affine = np.diag([*signs, 1.0]) @ affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError("its space directions are not invertible", path=name)
    return spatial, affine, calibrated


def _along(fields: Mapping[str, str], key: str, axes: list[int], name: str) -> list[float]:
    """Return one number for each of `axes` from a field that has one for each axis, else NaN."""
    words = fields.get(key, "").split()
    try:
        return [float(words[n]) if n < len(words) else np.nan for n in axes]
    except ValueError as error:
        raise CorruptFile(f"{key} must be numbers, got {fields[key]!r}", path=name) from error


def _first_samples(
    fields: Mapping[str, str], axes: list[int], steps: list[float], name: str
) -> list[float]:
    """Return where the first samples lie: `axis mins` are cells' edges unless centers are nodes."""
    mins = _along(fields, "axis mins", axes, name)
    centers = fields.get("centers", fields.get("centerings", "")).lower().split()
    nodes = [n < len(centers) and centers[n] == "node" for n in axes]
    return [
        0.0 if np.isnan(low) else low + (0.0 if is_node else step / 2)
        for low, step, is_node in zip(mins, steps, nodes, strict=True)
    ]


def _whole(text: str, key: str, name: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise CorruptFile(f"{key} must be a whole number, got {text!r}", path=name) from error


def _parsed(text: str, name: str) -> list[float]:
    try:
        values = [float(value) for value in text.strip(" ()").split(",")]
    except ValueError as error:
        raise CorruptFile(f"the vector {text!r} is not one", path=name) from error
    if not 1 <= len(values) <= 3:
        raise CorruptFile(f"the vector {text!r} must have 1 to 3 numbers", path=name)
    return values


def _numbers(fields: Mapping[str, str], key: str, name: str, kind: type[int]) -> list[int]:
    try:
        return [kind(value) for value in fields.get(key, "").split()]
    except ValueError as error:
        raise CorruptFile(f"{key} must be numbers, got {fields[key]!r}", path=name) from error


def _vector(values: Array) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


@dataclass(frozen=True, slots=True)
class _Segment:
    name: str
    value: int
    layer: int


def _segments(keys: Mapping[str, str], path: str) -> list[_Segment]:
    """Return 3D Slicer's segments, in order."""
    found = []
    number = 0
    while f"Segment{number}_ID" in keys or f"Segment{number}_Name" in keys:
        start = f"Segment{number}_"
        name = keys.get(start + "Name", keys.get(start + "ID", "")).strip()
        value = _whole(keys.get(start + "LabelValue", "1"), start + "LabelValue", path)
        layer = _whole(keys.get(start + "Layer", str(number)), start + "Layer", path)
        found.append(_Segment(name, value, layer))
        number += 1
    return found


def _named(data: Array, segments: list[_Segment]) -> tuple[Array, dict[int, str]]:
    """Return layers in which a value means one structure everywhere, and the values' names."""
    values = [segment.value for segment in segments]
    if len(set(values)) == len(values):
        return data, {segment.value: segment.name for segment in segments}
    # 3D Slicer reuses values in different layers: number the segments in their order.
    out = np.zeros(data.shape, np.uint16)
    for number, segment in enumerate(segments, start=1):
        if segment.layer < len(data):
            out[segment.layer][data[segment.layer] == segment.value] = number
    return out, {number: segment.name for number, segment in enumerate(segments, start=1)}


def _segment_keys(labels: LabelMap) -> list[str]:
    lines = []
    for number, (value, name) in enumerate(labels.names.items()):
        layers = [n for n, layer in enumerate(labels.data) if (layer == value).any()]
        lines += [
            f"Segment{number}_ID:=Segment_{value}",
            f"Segment{number}_Name:={' '.join(name.split())}",
            f"Segment{number}_LabelValue:={value}",
            f"Segment{number}_Layer:={layers[0] if layers else 0}",
        ]
    return lines
