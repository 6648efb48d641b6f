# SPDX-License-Identifier: Apache-2.0
"""MINC 1 (NetCDF classic) and MINC 2 (HDF5), plain or gzipped; MINC 2 is written.

Sources: "MINC 2.0 File Format Reference" and "MINC 1 Programmer's Guide" (MNI). MINC's world is
RAS+. A dimension lies at `(start + step · index) · direction_cosines`. The file's fastest axis is
i, so that axial files have their slices along k. Integers are voxel values that image-min and
image-max, given for the whole image or per slice, map to real values; where that mapping is the
identity, integers stay integers. Time and vector dimensions become channels.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat, UsageError
from vesalius.files import write_atomically
from vesalius.geometry import axis_codes
from vesalius.io import netcdf, streams
from vesalius.io.limits import DEFAULT_LIMITS, Limits, inflate
from vesalius.types import Affine, Array, PathLike
from vesalius.volume import LabelMap, Source, Volume

_SPATIAL = ("xspace", "yspace", "zspace")
_SIGNED = {1: "i1", 2: "i2", 4: "i4"}
_UNSIGNED = {1: "u1", 2: "u2", 4: "u4"}
_NAMES = "vesalius_label_names"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What both versions of MINC state, before scaling; `stored` has the slowest axis first."""

    dimensions: tuple[str, ...]
    stored: Array
    low: Array  # image-min, over the leading dimensions
    high: Array  # image-max
    valid: tuple[float, float] | None
    attributes: Mapping[str, Mapping[str, Any]]  # of each dimension
    names: Mapping[int, str]


def read(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one `.mnc` or `.mnc.gz` file as real values."""
    name = os.fspath(path)
    start = streams.head(path, 4)
    size = os.stat(path).st_size
    packed = streams.is_gzip(path)
    buffer: io.BytesIO | None = None
    if packed:
        buffer = io.BytesIO()
        with open(path, "rb") as stream:
            for piece in inflate(stream, wbits=31, cap=limits.allowed(size), path=name):
                buffer.write(piece)
    if start[:3] == b"CDF":
        contents = _classic(path, buffer, size, limits)
        version = 1
    elif start == b"\x89HDF":
        contents = _hdf5(path, buffer, size, limits)
        version = 2
    else:
        raise CorruptFile("a MINC file starts with 'CDF' or HDF5's signature", path=name)
    affine, spatial = _affine(contents, name)
    values = _real(contents, name)
    others = [n for n in range(values.ndim) if n not in spatial]
    # The file's last spatial axis is the fastest: i.
    data = values.transpose([*others, *reversed(spatial)])
    shape = [values.shape[n] for n in reversed(spatial)]
    data = data.reshape(-1, *shape)
    source = Source(
        files=(name,),
        format=f"minc{version}",
        metadata={"dimensions": list(contents.dimensions), "stored": contents.stored.dtype.name},
    )
    channels = ("red", "green", "blue")
    is_color = "vector_dimension" in contents.dimensions and len(data) == 3
    if contents.names and data.dtype.kind in "iu":
        return LabelMap(data, affine, source=source, names=contents.names)
    return Volume(data, affine, channels=channels if is_color else (), source=source)


def write(volume: Volume, path: PathLike) -> Path:
    """Write MINC 2 by the published HDF5 layout, atomically.

    Each voxel axis becomes the world dimension that it is closest to, with its direction cosines.
    Integers are stored as they are, with an identity mapping to real values; floats as floats.
    Several channels become a `time` dimension. A `LabelMap` keeps its names in an attribute.
    """
    if not Path(path).name.lower().endswith(".mnc"):
        raise UsageError(f"a MINC file is written as .mnc, got '{Path(path).name}'")
    data = _storable(volume.data)
    buffer = io.BytesIO()
    _write_hdf5(volume, data, buffer)
    return write_atomically(path, lambda stream: stream.write(buffer.getbuffer()))


def _classic(path: PathLike, buffer: io.BytesIO | None, size: int, limits: Limits) -> _Contents:
    name = os.fspath(path)
    if buffer is not None:
        view = buffer.getbuffer()
    else:
        limits.check(2 * size, size, what="the file", path=name)
        view = memoryview(Path(path).read_bytes())
    if len(view) < 32:
        raise CorruptFile("the NetCDF header ends too early", path=name)
    found = netcdf.variables(view, name)
    image = _expected(found, "image", name)
    sign = str(image.attributes.get("signtype", "")).rstrip("_")
    dtype = image.dtype
    if dtype.kind in "iS":
        signed = sign == "signed" if sign else dtype.itemsize > 1
        dtype = np.dtype(">" + (_SIGNED if signed else _UNSIGNED)[dtype.itemsize])
    image = netcdf.Variable(image.dimensions, image.shape, image.attributes, dtype, image.offset)
    limits.check(
        len(view) + _converted_bytes(image.shape, dtype),
        size,
        what=f"an image of {'x'.join(map(str, image.shape))}",
        path=name,
    )
    low, high = _expected(found, "image-min", name), _expected(found, "image-max", name)
    if low.dimensions != high.dimensions:
        raise CorruptFile("image-min and image-max differ in their dimensions", path=name)
    return _Contents(
        image.dimensions,
        image.values(view, name),
        low.values(view, name).astype(np.float64),
        high.values(view, name).astype(np.float64),
        _valid_range(image.attributes),
        {one: found[one].attributes if one in found else {} for one in image.dimensions},
        {},
    )


def _hdf5(path: PathLike, buffer: io.BytesIO | None, size: int, limits: Limits) -> _Contents:
    import h5py

    from vesalius.io import hdf5

    name = os.fspath(path)
    try:
        with h5py.File(path if buffer is None else buffer, "r") as file:
            image = hdf5.dataset(file, "minc-2.0/image/0/image", name)
            order = hdf5.text(image, "dimorder")
            dimensions = tuple(order.split(",")) if order else ()
            if len(dimensions) != len(image.shape):
                raise CorruptFile(
                    f"dimorder {order!r} does not name the {len(image.shape)} axes", path=name
                )
            held = len(buffer.getbuffer()) if buffer is not None else 0
            limits.check(
                held
                + streams.byte_count(image.shape, image.dtype)
                + _converted_bytes(image.shape, image.dtype),
                size,
                what=f"an image of {'x'.join(map(str, image.shape))}",
                path=name,
            )
            low = hdf5.dataset(file, "minc-2.0/image/0/image-min", name)
            high = hdf5.dataset(file, "minc-2.0/image/0/image-max", name)
            if low.shape != high.shape or low.shape != image.shape[: len(low.shape)]:
                raise CorruptFile(
                    f"image-min {low.shape} and image-max {high.shape} do not fit the image "
                    f"{image.shape}",
                    path=name,
                )
            return _Contents(
                dimensions,
                hdf5.values(image, limits, size, name),
                hdf5.values(low, limits, size, name).astype(np.float64),
                hdf5.values(high, limits, size, name).astype(np.float64),
                _valid_range(image.attrs),
                {
                    one: dict(hdf5.dataset(file, f"minc-2.0/dimensions/{one}", name).attrs)
                    for one in dimensions
                },
                _label_names(hdf5.text(image, _NAMES), name),
            )
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        # h5py raises any of these on damaged metadata.
        raise CorruptFile(f"the HDF5 file is damaged: {error}", path=name) from error


def _expected(found: Mapping[str, netcdf.Variable], variable: str, name: str) -> netcdf.Variable:
    if variable not in found:
        raise CorruptFile(f"it is no MINC file: the variable '{variable}' is missing", path=name)
    return found[variable]


def _valid_range(attributes: Mapping[str, Any]) -> tuple[float, float] | None:
    if "valid_range" in attributes:
        ends = np.ravel(attributes["valid_range"]).astype(np.float64)
    elif "valid_min" in attributes and "valid_max" in attributes:
        ends = np.ravel([attributes["valid_min"], attributes["valid_max"]]).astype(np.float64)
    else:
        return None
    return (float(ends.min()), float(ends.max())) if len(ends) == 2 else None


def _converted_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    return streams.byte_count(tuple(shape), streams.scaled_dtype(dtype))


def _affine(contents: _Contents, name: str) -> tuple[Affine, list[int]]:
    """Return the affine of the reversed spatial axes and the file's spatial axes, slowest first."""
    spatial = [n for n, one in enumerate(contents.dimensions) if one in _SPATIAL]
    if sorted(contents.dimensions[n] for n in spatial) != sorted(_SPATIAL):
        raise UnsupportedFormat(
            f"MINC with dimensions {', '.join(contents.dimensions)} is not read: xspace, yspace "
            "and zspace are needed",
            path=name,
        )
    affine = np.eye(4)
    affine[:3, 3] = 0
    for column, n in enumerate(reversed(spatial)):
        one = contents.dimensions[n]
        attributes = contents.attributes[one]
        spacing = attributes.get("spacing", "regular__")
        spacing = spacing.decode("latin-1") if isinstance(spacing, bytes) else str(spacing)
        if spacing.startswith("irregular"):
            raise GeometryError(
                f"its dimension {one} is spaced irregularly; resample it with `mincresample`",
                path=name,
                dimension=one,
            )
        default = np.eye(3)[_SPATIAL.index(one)]
        cosines = np.ravel(attributes.get("direction_cosines", default)).astype(np.float64)
        step = float(np.ravel(attributes.get("step", 1.0))[0])
        start = float(np.ravel(attributes.get("start", 0.0))[0])
        if cosines.shape != (3,):
            raise CorruptFile(f"direction_cosines of {one} must be three numbers", path=name)
        if not np.isfinite([*cosines, step, start]).all():
            raise GeometryError(f"start, step and cosines of {one} must be finite", path=name)
        affine[:3, column] = cosines * step
        affine[:3, 3] += cosines * start
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError("its steps and direction cosines are not invertible", path=name)
    return affine, spatial


def _real(contents: _Contents, name: str) -> Array:
    """Return the real values, or the stored integers where both are the same."""
    stored = contents.stored
    if stored.dtype.kind == "f":
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind not in "iu":
        raise UnsupportedFormat(f"MINC with {stored.dtype} voxels is not read", path=name)
    limits = np.iinfo(stored.dtype)
    low, high = contents.valid or (float(limits.min), float(limits.max))
    if low < limits.min or high > limits.max or high <= low:
        raise CorruptFile(
            f"valid_range {low:g} to {high:g} does not fit {stored.dtype.name}", path=name
        )
    slope = np.atleast_1d((contents.high - contents.low) / (high - low)).ravel()
    inter = np.atleast_1d(contents.low).ravel() - low * slope
    whole = low <= limits.min and high >= limits.max
    native = stored.dtype.newbyteorder("=")
    if (slope == 1).all() and (inter == 0).all():
        clipped = stored if whole else np.clip(stored, native.type(low), native.type(high))
        return clipped.astype(native, copy=False)
    out = np.empty(stored.shape, streams.scaled_dtype(native))
    source, target = stored.reshape(len(slope), -1), out.reshape(len(slope), -1)
    piece = 1 << 20
    for n in range(len(slope)):
        for first in range(0, source.shape[1], piece):
            values = np.clip(source[n, first : first + piece].astype(np.float64), low, high)
            values *= slope[n]
            values += inter[n]
            with np.errstate(over="ignore"):  # beyond float32: infinity, as IEEE 754 says
                target[n, first : first + piece] = values
    return out


def _storable(data: Array) -> Array:
    if data.dtype == bool:
        return data.view(np.uint8)
    if data.dtype == np.float16:
        return data.astype(np.float32)
    if data.dtype.kind == "f":
        return data
    if data.dtype.itemsize == 8:
        low, high = int(data.min()), int(data.max())
        if low < -(2**31) or high >= 2**31:
            raise UsageError(f"MINC holds integers up to 32 bits, got values {low} to {high}")
        return data.astype(np.int32)
    if data.dtype.kind not in "iu":
        raise UsageError(f"MINC holds integers and floats, got {data.dtype}")
    return data


def _write_hdf5(volume: Volume, data: Array, buffer: io.BytesIO) -> None:
    import h5py

    letters = axis_codes(volume.affine)
    names = [_SPATIAL["RLAPSI".index(letter) // 2] for letter in letters]
    steps = np.asarray(volume.spacing) * [1 if c in "RAS" else -1 for c in letters]
    cosines = volume.affine[:3, :3] / steps
    starts = np.linalg.solve(cosines, volume.affine[:3, 3])
    several = len(data) > 1
    order = ["time"] * several + names[::-1]
    values = data.transpose(0, 3, 2, 1)
    values = values if several else values[0]
    if data.dtype.kind == "f":
        finite = data[np.isfinite(data)] if not np.isfinite(data).all() else data
        low = float(finite.min(initial=math.inf)) if finite.size else 0.0
        high = float(finite.max(initial=-math.inf)) if finite.size else 1.0
        high = high if high > low else low + 1.0
    else:
        info = np.iinfo(data.dtype)
        low, high = float(info.min), float(info.max)
    with h5py.File(buffer, "w", track_order=False) as file:
        root = file.create_group("minc-2.0")
        for attribute in ("ident", "history"):
            _put(root, attribute, "vesalius")
        root.create_group("info")
        dimensions = root.create_group("dimensions")
        for n, one in enumerate(names):
            _dimension(dimensions, one, volume.shape[n], starts[n], steps[n], "mm", cosines[:, n])
        if several:
            _dimension(dimensions, "time", len(data), 0.0, 1.0, "s", None)
        group = root.create_group("image/0")
        image = group.create_dataset(
            "image", data=values, chunks=_chunks(values.shape), compression="gzip",
            compression_opts=4,
        )  # fmt: skip
        _standard(image, "group________")
        _put(image, "dimorder", ",".join(order))
        _put(image, "complete", "true_")
        _put(image, "signtype", "unsigned" if data.dtype.kind == "u" else "signed__")
        image.attrs["valid_range"] = np.array([low, high])
        if isinstance(volume, LabelMap) and volume.names:
            import json

            _put(image, _NAMES, json.dumps({str(v): n for v, n in volume.names.items()}))
        for one, value in (("image-min", low), ("image-max", high)):
            end = group.create_dataset(one, data=np.float64(value))
            _standard(end, "var_attribute")


def _dimension(
    group: Any, name: str, length: int, start: float, step: float, unit: str, cosines: Array | None
) -> None:
    one = group.create_dataset(name, data=np.int32(0))
    _standard(one, "dimension____")
    for attribute, text in (("spacing", "regular__"), ("alignment", "centre"), ("units", unit)):
        _put(one, attribute, text)
    one.attrs["length"] = np.uint32(length)
    one.attrs["start"] = np.float64(start)
    one.attrs["step"] = np.float64(step)
    if cosines is not None:
        _put(one, "spacetype", "native____")
        one.attrs["direction_cosines"] = np.asarray(cosines, np.float64)


def _standard(item: Any, kind: str) -> None:
    _put(item, "varid", "MINC standard variable")
    _put(item, "vartype", kind)
    _put(item, "version", "MINC Version    1.0")


def _put(item: Any, name: str, text: str) -> None:
    item.attrs[name] = np.bytes_(text.encode("utf-8") + b"\0")


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return chunks of up to 64 voxels a side, as libminc writes them."""
    return tuple(min(64, n) for n in shape)


def _label_names(text: str, path: str) -> dict[int, str]:
    if not text:
        return {}
    import json

    try:
        return {int(value): str(name) for value, name in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise CorruptFile(f"the label names {text[:60]!r} are damaged", path=path) from error
