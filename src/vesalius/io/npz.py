# SPDX-License-Identifier: Apache-2.0
"""NPZ in MedMNIST form: arrays of many images, one of which is named `train_images[12]`.

Source: MedMNIST v2 (Yang et al. 2023). `(n, rows, columns)` are gray images, a last axis of 3 or 4
holds colors, `(n, depth, rows, columns)` are volumes. Axes become `(channel, i, j, k)` with i along
columns, j along rows, k along depth; the files state no spacing, so `calibrated` is False.
Object arrays are refused: nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError, did_you_mean
from vesalius.geometry import flat_affine
from vesalius.io import zipped
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array, PathLike
from vesalius.volume import Source, Volume

_MEMBER = re.compile(r"^(?P<name>[^\[\]]+)\[(?P<index>\d+)\]$")
_KEPT_BYTES = 64 << 20  # arrays up to this size are inflated once and kept, one a process
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an NPZ file, from its header alone: `name`, `shape`, `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def is_images(self) -> bool:
        """Whether the array holds one image per first index."""
        return len(self.shape) >= 3 and self.dtype.kind in "iufb"


def members(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> list[Member]:
    """List the arrays of an NPZ file without reading their values."""
    name = os.fspath(path)
    found = []
    with zipped.opened(path, limits) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".npy"):
                continue
            with zipped.member(archive, entry, path=name) as stream:
                dtype, shape, _ = _npy_header(stream, name)
            found.append(Member(entry.filename[: -len(".npy")], shape, dtype))
    return found


def image_members(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[str]:
    """Yield `name[index]` for every image of the file."""
    for member in members(path, limits=limits):
        if member.is_images:
            for index in range(member.shape[0]):
                yield f"{member.name}[{index}]"


def read(path: PathLike, *, member: str, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Read one image, named `array[index]`.

    An array of up to 64 MiB is inflated once per process and kept; a larger one is streamed, so
    reading in rising order of index costs one pass, whatever its size.
    """
    name = os.fspath(path)
    match = _MEMBER.match(member)
    if not match:
        raise UsageError(
            f"{name}: name one image with member='array[index]', got {member!r}; arrays here: "
            + ", ".join(f"{m.name} {m.shape}" for m in members(path, limits=limits))
        )
    wanted, index = match["name"], int(match["index"])
    pixels = _SHELF.image(path, wanted, index, limits)
    return Volume(
        _as_channels(pixels),
        flat_affine(),
        calibrated=False,
        source=Source(files=(name,), format="npz", member=member),
    )


def _as_channels(pixels: Array) -> Array:
    """Return one image, gray or colored, 2D or 3D, as `(channel, i, j, k)`."""
    if pixels.ndim == 2:
        return pixels.T[None, :, :, None]
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        return pixels.transpose(2, 1, 0)[..., None]
    if pixels.ndim == 3:
        return pixels.transpose(2, 1, 0)[None]
    return pixels.transpose(3, 2, 1, 0)


class _Shelf:
    """What was inflated last: a whole small array, or the place reached in a large one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[object, ...] = ()
        self._array: Array | None = None
        self._images: Iterator[Array] = iter(())
        self._next = 0
        self._count = 0

    def image(self, path: PathLike, wanted: str, index: int, limits: Limits) -> Array:
        status = os.stat(path)
        key = (os.path.abspath(path), status.st_mtime_ns, status.st_size, wanted, os.getpid())
        with self._lock:
            if key != self._key or (self._array is None and index < self._next):
                self._open(path, wanted, limits)
                self._key = key
            if index >= self._count:
                raise UsageError(
                    f"{os.fspath(path)}: '{wanted}' holds images 0 to {self._count - 1}, "
                    f"got {index}"
                )
            if self._array is not None:
                kept: Array = self._array[index].copy()
                return kept
            try:
                while self._next <= index:
                    image = next(self._images)
                    self._next += 1
            except BaseException:
                self._key = ()  # the stream is broken: the next call starts anew
                raise
            return image

    def _open(self, path: PathLike, wanted: str, limits: Limits) -> None:
        self._key, self._array, self._images, self._next = (), None, iter(()), 0
        name = os.fspath(path)
        images = _stream_images(path, wanted, limits)
        dtype, shape = next(images)
        self._count = shape[0]
        total = math.prod(shape) * dtype.itemsize
        if total <= min(_KEPT_BYTES, limits.allowed(os.stat(name).st_size)):
            array = np.empty(shape, dtype)
            for n, image in enumerate(images):
                array[n] = image
            self._array = array
        else:
            self._images = images


def _stream_images(path: PathLike, wanted: str, limits: Limits) -> Iterator[Any]:
    """Yield `(dtype, shape)` of the array, then its images one by one."""
    name = os.fspath(path)
    with zipped.opened(path, limits) as archive:
        try:
            entry = archive.getinfo(f"{wanted}.npy")
        except KeyError:
            known = [n[: -len(".npy")] for n in archive.namelist() if n.endswith(".npy")]
            raise UsageError(
                f"{name}: holds no array '{wanted}', only {', '.join(known)}."
                + did_you_mean(wanted, known)
            ) from None
        with zipped.member(archive, entry, path=name) as stream:
            dtype, shape, fortran = _npy_header(stream, name)
            one = math.prod(shape[1:]) * dtype.itemsize
            if not 3 <= len(shape) <= 5 or dtype.kind not in "iufb":
                raise UnsupportedFormat(
                    f"array '{wanted}' of shape {shape} and type {dtype} holds no images: 3 to 5 "
                    "axes of numbers are needed, the first counting images",
                    path=name,
                )
            if fortran:
                raise UnsupportedFormat(
                    f"array '{wanted}' is in Fortran order, in which images cannot be streamed; "
                    "write it with numpy.ascontiguousarray",
                    path=name,
                )
            if min(shape) < 1:
                raise CorruptFile(f"array '{wanted}' is empty: shape {shape}", path=name)
            limits.check(
                2 * one,
                os.stat(path).st_size,
                what=f"one image of {'x'.join(map(str, shape[1:]))} {dtype.name}",
                path=name,
            )
            yield dtype.newbyteorder("="), shape
            for index in range(shape[0]):
                image = np.empty(shape[1:], dtype)
                target = image.reshape(-1).view(np.uint8)
                done = 0
                while done < one:
                    piece = zipped.take(stream, min(_PIECE, one - done), path=name)
                    if not piece:
                        raise CorruptFile(
                            f"array '{wanted}' ends within image {index} of {shape[0]}",
                            path=name,
                            image=index,
                            expected=shape[0],
                        )
                    target[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                    done += len(piece)
                yield image.astype(dtype.newbyteorder("="), copy=False)


def _npy_header(stream: IO[bytes], name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Parse the header of a `.npy` stream (NEP 1) without `eval` and without pickle."""
    start = zipped.take(stream, 8, path=name)
    if start[:6] != b"\x93NUMPY" or len(start) < 8:
        raise CorruptFile("a member is not a .npy array", path=name)
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(zipped.take(stream, width, path=name), "little")
    if length > 1 << 16:
        raise CorruptFile(f"a .npy header of {length} bytes is refused (at most 65536)", path=name)
    text = zipped.take(stream, length, path=name).decode("latin-1")
    try:
        fields = ast.literal_eval(text.strip())
        descr, shape = fields["descr"], fields["shape"]
        fortran = bool(fields["fortran_order"])
        sizes = tuple(int(n) for n in shape)
        dtype = np.dtype(descr) if isinstance(descr, str) else np.dtype(object)
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise CorruptFile(f"a .npy header is damaged: {text[:80]!r}", path=name) from error
    if dtype.hasobject or dtype.kind not in "iufbUS":
        raise UnsupportedFormat(
            f"an array of type {descr!r} is refused: it would have to be unpickled", path=name
        )
    if min(sizes, default=1) < 0:
        raise CorruptFile(f"a .npy header states the shape {sizes}", path=name)
    return dtype, sizes, fortran


_SHELF = _Shelf()
