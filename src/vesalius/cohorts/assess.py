# SPDX-License-Identifier: Apache-2.0
"""What `scan` measures on one decoded image: statistics, content hash, perceptual hash.

The cost is a small part of decoding: integers are counted in a histogram, order statistics of
large images come from a fixed-stride sample, nothing is copied to float64 as a whole, and the
same voxels always give the same numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np

from vesalius.types import Affine, Array
from vesalius.volume import Volume

SAMPLE = 1 << 18  # order statistics use at most this many voxels, at a fixed stride
SMALLEST_SIDE = 16  # pixels; below it a perceptual hash tells nothing
HASH_BITS = 64
SIGNATURE = 256  # coefficients

_SLAB = 1 << 22  # voxels that are converted at a time
_HISTOGRAM = 1 << 16  # widest value range that is counted exactly
_FLAT_STACK = 9  # fewer slices than this are averaged and hashed as one image
_BLOCKS = 1 << 16  # 2 x 2 blocks that noise is measured on
_MAD_OF_NORMAL = 0.6745
_PLANE = 128  # pixels per axis that the hash of a 2D image looks at, 3D: half of it


@dataclass(frozen=True, slots=True)
class Assessment:
    """Statistics and identity of one image; a field is None where it is undefined.

    Attributes:
        stat_min, stat_max, stat_mean, stat_std: over all finite voxels and channels.
        stat_median, stat_mad, stat_p01, stat_p99: order statistics (inverted distribution
            function, no interpolation) of the finite voxels, exact for integers of up to 16 bits
            and for images of up to `SAMPLE` voxels, else of a fixed-stride sample; `stat_mad` is
            the median absolute deviation from the median, not scaled.
        stat_snr: robust signal-to-noise ratio, (median of the tissue minus 1st percentile) /
            sigma by `noise_sigma`; tissue is what exceeds the mean. Unchanged by `a·x + b`, a > 0.
        content_hash: 32 hex digits over the decoded values, shape and affine (rounded to
            1e-3 mm); the same for every dtype and memory layout that holds the same values.
        phash: 64 signs of the lowest spatial frequencies, see `spectrum`; None for a constant or
            tiny image.
        signature: the lowest `SIGNATURE` frequencies as int8, which confirm what `phash`
            suggests; None where `phash` is None. Counts as patient data, like a thumbnail.
    """

    stat_min: float | None = None
    stat_max: float | None = None
    stat_mean: float | None = None
    stat_std: float | None = None
    stat_median: float | None = None
    stat_mad: float | None = None
    stat_p01: float | None = None
    stat_p99: float | None = None
    stat_snr: float | None = None
    content_hash: str | None = None
    phash: int | None = None
    signature: bytes | None = None

    def columns(self) -> dict[str, Any]:
        """Return the fields by column name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def assess(volume: Volume, *, header_only: bool = False) -> Assessment:
    """Measure one image; with `header_only` every field is None (there are no pixels to see)."""
    data = volume.data
    if header_only or data.size == 0:
        return Assessment()
    low, high = _extremes(data)
    if low is None or high is None:  # no finite voxel
        return Assessment(content_hash=content_hash(volume))
    mean, std, median, mad, p01, p99 = _statistics(data, low, high)
    constant = low == high
    floor, ceiling = (p01, p99) if p99 > p01 else (low, high)
    waves = None if constant else spectrum(volume, floor, ceiling)
    return Assessment(
        stat_min=float(low),
        stat_max=float(high),
        stat_mean=mean,
        stat_std=std,
        stat_median=median,
        stat_mad=mad,
        stat_p01=p01,
        stat_p99=p99,
        stat_snr=None if constant else _snr(data, mean, p01),
        content_hash=_content_hash(volume, low, high),
        phash=None if waves is None else _signs(waves),
        signature=None if waves is None else _quantized(waves),
    )


def content_hash(volume: Volume) -> str:
    """Return 32 hex digits that name the decoded values, shape and affine of an image."""
    low, high = _extremes(volume.data)
    return _content_hash(volume, low, high)


def haar_detail(planes: Array) -> tuple[Array, Array]:
    """Return the finest diagonal detail of `planes` `(..., i, j)`, and the level it lies at.

    Both flat, one value for each of at most about 65,000 blocks of 2 x 2 pixels spread evenly:
    the absolute Haar coefficient |a - b - c + d| / 2, and the least of the four pixels. For white
    noise of standard deviation s the median of the first is 0.6745 s, and edges hardly count
    because they are sparse in it (Donoho and Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", Biometrika 81, 1994). The second tells tissue from air, where noise is another
    (Rician, or cut to zero).
    """
    i, j = planes.shape[-2] // 2 * 2, planes.shape[-1] // 2 * 2
    step = 2 * max(1, int((planes.size / (4 * _BLOCKS)) ** 0.5))
    quads = [planes[..., y:i:step, x:j:step] for y in (0, 1) for x in (0, 1)]
    wide = np.float64 if planes.dtype.itemsize > 4 else np.float32
    a, b, c, d = (np.asarray(quad, dtype=wide) for quad in quads)
    level = np.minimum(np.minimum(a, b), np.minimum(c, d))
    detail = np.subtract(a, b)
    np.subtract(detail, c, out=detail)
    np.add(detail, d, out=detail)
    np.abs(detail, out=detail)
    detail *= 0.5
    return detail.reshape(-1), level.reshape(-1)


def noise_sigma(planes: Array, *, above: float = -np.inf) -> float:
    """Return the robust noise of `planes` `(..., i, j)` where it exceeds `above`; nan if nowhere.

    In the unit of the values; see `haar_detail`.
    """
    detail, level = haar_detail(planes)
    return _middle(detail[level > above]) / _MAD_OF_NORMAL


def spectrum(volume: Volume, floor: float, ceiling: float) -> Array | None:
    """Return the `SIGNATURE` lowest frequencies of an image; None where it has no useful size.

    A type-II discrete cosine transform (as in the perceptual hash of Zauner, "Implementation and
    benchmarking of perceptual image hash functions", 2010), in 2D or 3D, of the values clipped
    to `[floor, ceiling]`, channels averaged. Each coefficient is multiplied by its frequency,
    which evens out the 1/f spectrum of natural images, then all are scaled to a maximum of 1.
    Volumes are turned to RAS first, so that two files of one volume agree; single images keep
    their own axes. Order of coefficients: `frequencies`.
    """
    data = volume.data
    if min(data.shape[1:3]) < SMALLEST_SIDE:
        return None
    deep = data.shape[3] >= _FLAT_STACK
    if deep:
        data = _toward_ras(data, volume.affine)
    limit = _PLANE // 2 if deep else _PLANE
    steps = [max(1, n // limit) for n in data.shape[1:3]]
    view = data[:, :: steps[0], :: steps[1]]
    if deep:
        view = view[..., :: max(1, data.shape[3] // limit)]
    image = _clipped(view, floor, ceiling)
    image = image[0] if len(image) == 1 else image.mean(axis=0)
    if not deep:
        image = image[..., 0] if image.shape[-1] == 1 else image.mean(axis=-1)
    index, weights, count = _selection(image.ndim)
    shape = image.shape
    for n in shape:  # each pass turns the first axis into frequencies, and puts it last
        image = (_cosines(n, count) @ image.reshape(n, -1)).T
    chosen = image.reshape(-1)[index]
    chosen *= weights
    peak = max(chosen.max(), -chosen.min())
    if not peak > 1e-6 * (ceiling - floor):
        return None
    found: Array = chosen / peak
    return found


@lru_cache(maxsize=2)
def frequencies(dimensions: int) -> Array:
    """Return the frequency `(SIGNATURE, dimensions)` of each coefficient, lowest first."""
    grid = np.indices((24,) * dimensions if dimensions == 2 else (10,) * 3)
    grid = grid.reshape(dimensions, -1).T
    radius = (grid**2).sum(axis=1)
    order = np.lexsort([*grid.T[::-1], radius])
    return grid[order][1 : SIGNATURE + 1]  # without the mean


def _signs(waves: Array) -> int:
    return int.from_bytes(np.packbits(waves[:HASH_BITS] > 0).tobytes(), "big", signed=True)


def _quantized(waves: Array) -> bytes:
    codes: bytes = np.rint(waves * 127).astype(np.int8).tobytes()
    return codes


@lru_cache(maxsize=2)
def _selection(dimensions: int) -> tuple[Array, Array, int]:
    chosen = frequencies(dimensions)
    count = int(chosen.max()) + 1
    index = np.ravel_multi_index(tuple(chosen.T), (count,) * dimensions)
    norms = np.where(chosen == 0, np.sqrt(0.5), 1.0).prod(axis=1)
    weights = np.sqrt((chosen**2).sum(axis=1)) * norms
    return index, weights.astype(np.float32), count


@lru_cache(maxsize=512)
def _cosines(n: int, count: int) -> Array:
    """Return the first `count` rows of the cosine transform over `n` samples, as averages."""
    phase = np.outer(np.arange(count), (np.arange(n) + 0.5) / n)
    table = np.cos(np.pi * phase) / n
    table[n:] = 0  # a short axis has no such frequency
    return table.astype(np.float32)


def _clipped(view: Array, floor: float, ceiling: float) -> Array:
    """Return `view` clipped, minus `floor`, as float32; what is not finite counts as an end."""
    if view.dtype.kind == "b":
        return view.astype(np.float32)
    if view.dtype.kind != "f":
        image = np.maximum(view, int(floor))
        np.minimum(image, int(ceiling), out=image)
        return np.subtract(image, np.float32(floor), dtype=np.float32)
    image = np.where(np.isnan(view), view.dtype.type(floor), view)
    np.clip(image, floor, ceiling, out=image)
    image -= view.dtype.type(floor)
    return image.astype(np.float32, copy=False)


def _toward_ras(data: Array, affine: Affine) -> Array:
    """Return a view whose axes i, j, k run closest to right, anterior, superior."""
    size = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    order = [0, 0, 0]
    for _ in range(3):  # the clearest pair of world and voxel axis first
        world, axis = divmod(int(np.argmax(size)), 3)
        order[world] = axis
        size[world], size[:, axis] = -1, -1
    turned = data.transpose(0, *(axis + 1 for axis in order))
    back = [affine[world, axis] < 0 for world, axis in enumerate(order)]
    return turned[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in back))]


def _slabs(data: Array) -> list[Array]:
    """Return views along k of at most about `_SLAB` voxels, axes in memory order (k, j, i, c)."""
    turned = data.transpose(3, 2, 1, 0)
    if data.size <= _SLAB:
        return [turned]
    thick = max(1, _SLAB // max(1, turned[0].size))
    return [turned[n : n + thick] for n in range(0, len(turned), thick)]


def _extremes(data: Array) -> tuple[Any, Any]:
    """Return the smallest and largest finite value, `(None, None)` where there is none."""
    if data.size == 0:
        return None, None
    if data.dtype.kind == "b":
        return int(data.min()), int(data.max())
    low, high = data.min(), data.max()
    if data.dtype.kind != "f":
        return int(low), int(high)
    if np.isfinite(low) and np.isfinite(high):
        return float(low), float(high)
    found = [piece[np.isfinite(piece)] for piece in _slabs(data)]
    found = [piece for piece in found if piece.size]
    if not found:
        return None, None
    return min(float(piece.min()) for piece in found), max(float(piece.max()) for piece in found)


def _statistics(data: Array, low: Any, high: Any) -> tuple[float, ...]:
    """Return mean, std, median, mad, p01, p99."""
    if data.dtype.kind in "iub" and high - low < min(_HISTOGRAM, max(4096, 4 * data.size)):
        return _counted(data, int(low), int(high))
    mean, std = _moments(data)
    flat = data.transpose(3, 2, 1, 0).reshape(-1) if data.size <= SAMPLE else _sample(data)
    if flat.dtype.kind == "f":
        good = np.isfinite(flat)
        flat = flat if good.all() else flat[good]
        if not flat.size:
            flat = np.array([low, high])
    ordered = np.sort(flat)
    n = len(ordered)
    p01, median, p99 = (ordered[_rank(n, q)] for q in (0.01, 0.5, 0.99))
    apart = np.abs(ordered.astype(np.float64) - float(median))
    rank = _rank(n, 0.5)
    mad = np.partition(apart, rank)[rank]
    return mean, std, float(median), float(mad), float(p01), float(p99)


def _counted(data: Array, low: int, high: int) -> tuple[float, ...]:
    """Return the same from a histogram, one bin a value: exact, one pass."""
    n, width = data.size, high - low + 1
    counts = np.zeros(width, np.int64)
    for piece in _slabs(data):
        shifted = piece.reshape(-1).astype(np.intp)
        shifted -= low
        counts += np.bincount(shifted, minlength=width)
    values = np.arange(width, dtype=np.float64)
    first = values * counts
    mean = float(first.sum()) / n
    variance = float(first @ values) / n - mean * mean
    upto = np.cumsum(counts)
    half = _rank(n, 0.5) + 1
    p01, median, p99 = upto.searchsorted((_rank(n, 0.01) + 1, half, _rank(n, 0.99) + 1)).tolist()
    near, far = -1, max(median, width - 1 - median)  # the answer is in (near, far]
    while far - near > 1:
        middle = (near + far) // 2
        inside = upto[min(width - 1, median + middle)]
        if middle < median:
            inside = inside - upto[median - middle - 1]
        near, far = (near, middle) if inside >= half else (middle, far)
    return (
        mean + low,
        max(0.0, variance) ** 0.5,
        float(median + low),
        float(far),
        float(p01 + low),
        float(p99 + low),
    )


def _moments(data: Array) -> tuple[float, float]:
    """Return mean and standard deviation of the finite values, slab by slab (Chan et al. 1979)."""
    n, mean, square = 0, 0.0, 0.0
    for piece in _slabs(data):
        values = piece.reshape(-1).astype(np.float64)
        good = np.isfinite(values)
        values = values if good.all() else values[good]
        if not values.size:
            continue
        m = float(values.mean())
        values -= m
        step = m - mean
        square += float(values @ values) + step * step * n * values.size / (n + values.size)
        mean += step * values.size / (n + values.size)
        n += values.size
    return mean, (square / n) ** 0.5


def _sample(data: Array) -> Array:
    """Return at most about `SAMPLE` voxels at one odd stride through memory order."""
    stride = -(-data.size // SAMPLE) | 1
    picked, start = [], 0
    for piece in _slabs(data):
        flat = piece.reshape(-1)
        picked.append(flat[start::stride].copy())
        start = (start - flat.size) % stride
    return np.concatenate(picked)


def _rank(n: int, q: float) -> int:
    """Return the index of the q-quantile among `n` ordered values (inverted distribution)."""
    return max(0, ceil(q * n) - 1)


def _middle(values: Array) -> float:
    """Return the median (the upper of two) of flat `values`; nan when there are none."""
    n = len(values) // 2
    return float(np.partition(values, n)[n]) if len(values) else float("nan")


def _snr(data: Array, mean: float, p01: float) -> float | None:
    """Return the robust signal-to-noise ratio of up to five slices spread over the volume."""
    if min(data.shape[1:3]) < 4:
        return None
    depth = data.shape[3]
    planes = data[0].transpose(2, 1, 0)
    if depth > 5:
        planes = planes[np.linspace(0, depth - 1, 7).astype(int)[1:-1]]
    detail, level = haar_detail(planes)
    inside = level > mean
    sigma = _middle(detail[inside]) / _MAD_OF_NORMAL
    if not sigma > 0:
        return None
    return (_middle(level[inside]) - p01) / sigma


def _content_hash(volume: Volume, low: Any, high: Any) -> str:
    dtype = _canonical_dtype(volume.data, low, high)
    engine = hashlib.sha256()
    affine = volume.affine[:3].round(3) + 0.0
    engine.update(f"{volume.data.shape}{dtype.str}".encode() + affine.tobytes())
    for piece in _slabs(volume.data):
        values = np.ascontiguousarray(piece, dtype)
        if dtype.kind == "f":
            values = values + dtype.type(0)  # one zero: -0.0 becomes 0.0
        engine.update(values.data)
    return engine.hexdigest()[:32]


def _canonical_dtype(data: Array, low: Any, high: Any) -> np.dtype[Any]:
    """Return the smallest of u1, i2, i4, i8, f4, f8 that holds every value exactly."""
    kind = data.dtype.kind
    whole = kind in "iub" or (
        low is not None
        and max(abs(low), abs(high)) < 2**53
        and all(_all_whole(piece) for piece in [data[:, ::7, ::7, ::3], *_slabs(data)])
    )
    if whole:
        if kind == "u" and high > 2**63 - 1:
            return np.dtype("<u8")
        for name in ("<u1", "<i2", "<i4"):
            bounds = np.iinfo(name)
            if bounds.min <= low and high <= bounds.max:
                return np.dtype(name)
        return np.dtype("<i8")
    if data.dtype.itemsize <= 4:
        return np.dtype("<f4")
    narrow = all(_all_float32(piece) for piece in [data[:, ::7, ::7, ::3], *_slabs(data)])
    return np.dtype("<f4" if narrow else "<f8")


def _all_whole(values: Array) -> bool:
    return bool((values == np.rint(values)).all())  # not so for NaN and, by its hash, infinity


def _all_float32(values: Array) -> bool:
    with np.errstate(over="ignore"):
        same = values.astype(np.float32) == values
    return bool((same | np.isnan(values)).all())
