# SPDX-License-Identifier: Apache-2.0
"""Checks on the values of a whole image; each returns its findings, most often none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import numpy as np

from vesalius.cohorts.quality.findings import finding
from vesalius.results import Finding
from vesalius.types import Array
from vesalius.volume import Volume

SMALLEST_SIDE = 16
LARGEST_SIDE = 16_384
LARGEST = 1 << 28  # voxels: 1 GiB as float32
CLIPPED_SHARE = 0.02
CLIPPED_SPIKE = 10.0
LOWEST_SNR = 4.0
RADIOGRAPHS = frozenset({"CR", "DX", "MG", "RF", "PX", "IO", "RG"})

_CORNER = 0.06  # of the side
_LOOK = 1 << 18


def check_size(volume: Volume) -> Iterator[Finding]:
    """Name images below 16 pixels in the plane (no structure is left), and above 2^28 voxels."""
    i, j, k = volume.shape
    if min(i, j) < SMALLEST_SIDE:
        yield finding("tiny-image", f"the image has {i} x {j} x {k} voxels", {"shape": [i, j, k]})
    if i * j * k > LARGEST or max(i, j, k) > LARGEST_SIDE:
        yield finding("huge-image", f"the image has {i} x {j} x {k} voxels", {"shape": [i, j, k]})


def check_finite(volume: Volume) -> Iterator[Finding]:
    """Name any NaN or infinity; channels without any number, among others, are a warning."""
    data = volume.data
    if data.dtype.kind != "f" or (isfinite(data.min()) and isfinite(data.max())):
        return
    absent = [n for n, channel in enumerate(data) if np.isnan(channel).all()]
    if absent and len(absent) < len(data) and np.isfinite(np.delete(data, absent, axis=0)).all():
        yield finding(
            "non-finite-values",
            f"{len(absent)} of {len(data)} channels hold no number: they count as missing",
            {"channels": absent},
            severity="warning",
        )
        return
    bad = sum(int(np.count_nonzero(~np.isfinite(part))) for part in data.transpose(3, 0, 1, 2))
    yield finding(
        "non-finite-values",
        f"{bad:,} of {data.size:,} voxels are NaN or infinite",
        {"voxels": bad, "share": bad / data.size},
    )


def check_constant(row: Mapping[str, Any]) -> Iterator[Finding]:
    """Name images of one value, and of one value from the 1st to the 99th percentile."""
    low, high = row["stat_min"], row["stat_max"]
    if low == high:
        yield finding("constant-image", f"all voxels are {low:g}", {"value": low})
    elif row["stat_p01"] == row["stat_p99"]:
        yield finding(
            "near-constant-image",
            f"98 % of the voxels are {row['stat_p01']:g}",
            {"value": row["stat_p01"], "min": low, "max": high},
        )


def check_clipping(volume: Volume, row: Mapping[str, Any]) -> Iterator[Finding]:
    """Name a spike at the maximum: 2 % of the voxels or more, and 10 times the levels below.

    A scanner's own images leave the top of the range nearly empty. The levels compared with are
    the next 5 % of the range below the maximum, at their mean density. Images of few levels
    (drawings, masks) and color images (white glass is their background) are not judged.
    """
    low, high = row["stat_min"], row["stat_max"]
    data = volume.data
    if len(data) > 1 or row["stat_p99"] < high:
        return
    part = _look(data)
    share = float(np.count_nonzero(part == high)) / part.size
    if share < CLIPPED_SHARE:
        return
    width = 0.05 * (high - low)
    below = float(np.count_nonzero(part > high - width)) / part.size - share
    step = 1.0 if data.dtype.kind in "iub" else width / 16
    density = below / max(1.0, width / step)
    if share < CLIPPED_SPIKE * density or len(np.unique(part.reshape(-1)[::7])) <= 16:
        return
    yield finding(
        "clipping",
        f"{share:.1%} of the voxels are exactly {high:g}, the maximum",
        {"share": share, "value": high, "density_below": density},
    )


def check_noise(volume: Volume, row: Mapping[str, Any]) -> Iterator[Finding]:
    """Name a robust signal-to-noise ratio below 4 (Rose: about 5 is needed to see an object).

    Rose, "The sensitivity performance of the human eye on an absolute scale", JOSA 38, 1948. Not
    judged below 64 pixels, where the finest detail is anatomy.
    """
    snr = row["stat_snr"]
    if snr is None or min(volume.shape[:2]) < 64 or snr >= LOWEST_SNR:
        return
    yield finding(
        "extreme-noise",
        f"the robust signal-to-noise ratio is {snr:.1f}, at least {LOWEST_SNR:g} is expected",
        {"snr": snr},
    )


def check_photometric(volume: Volume, row: Mapping[str, Any]) -> Iterator[Finding]:
    """Name radiographs, CT and MR whose corners are brighter than 85 % of the range.

    Raised when at least three of the four corner patches (6 % of each side) of the middle slice
    have such a mean, in images of 64 pixels or more (a smaller one may be cut from a body).
    """
    if volume.modality not in RADIOGRAPHS | {"CT", "MR"} or min(volume.shape[:2]) < 64:
        return
    low, high = row["stat_p01"], row["stat_p99"]
    if not high > low:
        return
    corners = _corners(volume.data[0, :, :, volume.shape[2] // 2])
    levels = [(float(patch.mean()) - low) / (high - low) for patch in corners]
    if sum(level > 0.85 for level in levels) < 3:
        return
    yield finding(
        "inverted-photometric",
        "the corners of the image, where air is, are its brightest part",
        {"corner_levels": [round(level, 3) for level in levels]},
    )


def check_hounsfield(volume: Volume, row: Mapping[str, Any]) -> Iterator[Finding]:
    """Name a CT whose values cannot be Hounsfield units.

    In HU, air is -1000, fat -100, water 0, soft tissue 20 to 80, dense bone up to about 2000
    (Hounsfield 1973; AAPM report 39); below -1200 there is padding only. Raised when hardly a
    value is below -50 (a slice of 64 pixels or more holds fat or air), when 98 % of the values
    span less than 50 or the 99th percentile exceeds 3500, when the air (5 % of the voxels or
    more) is not near -1000, or when values below -1500 vary.
    """
    if volume.modality != "CT" or min(volume.shape[:2]) < 64:
        return
    low, p01, p99 = row["stat_min"], row["stat_p01"], row["stat_p99"]
    evidence = {"min": low, "p01": p01, "p99": p99}
    reason = ""
    if p01 > -50:
        reason = f"99 % of the values exceed {p01:g}, and HU are far below 0 in air and fat"
    elif p99 - p01 < 50:
        reason = f"98 % of the values lie between {p01:g} and {p99:g}, which no body does in HU"
    elif p99 > 3500:
        reason = f"the 99th percentile is {p99:g}, above metal"
    else:
        part = _look(volume.data)
        air = part[(part < -300) & (part > -1500)]
        below = part[part < -1500]  # padding has one value, air has noise
        if below.size >= 0.05 * part.size and len(set(np.percentile(below, (25, 75)))) == 2:
            reason = f"{below.size / part.size:.0%} of the values vary below -1500"
        elif air.size >= 0.05 * part.size:
            level = float(np.median(air))
            evidence["air"] = level
            if not -1150 < level < -550:
                reason = f"air lies at {level:g}, expected are about -1000"
    if reason:
        yield finding("not-hounsfield", reason, evidence)


def _corners(plane: Array) -> list[Array]:
    i, j = (max(2, round(n * _CORNER)) for n in plane.shape)
    return [plane[a, b] for a in (slice(i), slice(-i, None)) for b in (slice(j), slice(-j, None))]


def _look(data: Array) -> Array:
    """Return a view of at most about `_LOOK` voxels."""
    step = max(1, round((data.size / _LOOK) ** (1 / (3 if data.shape[3] > 1 else 2))))
    return data[:, ::step, ::step, :: step if data.shape[3] > 1 else 1]
