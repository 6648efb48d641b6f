# SPDX-License-Identifier: Apache-2.0
"""The interface of intensity methods, their registry, and the one door that values pass."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar, Protocol

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError, did_you_mean
from vesalius.normalization.card import Card
from vesalius.normalization.transfer import Transfer
from vesalius.types import Array, Json


class Method(Protocol):
    """An intensity method, ready to be applied (fitted, where it has to be).

    It is a frozen dataclass whose fields are its parameters. `solve` neither changes its input
    nor depends on values outside the mask.
    """

    card: ClassVar[Card]

    def solve(self, values: Array, mask: Array) -> Transfer:
        """Return the curve for one channel.

        Args:
            values: one channel, any shape, any real dtype.
            mask: the fitting mask, Boolean, same shape.

        Raises:
            NormalizationRefused: the values in the mask cannot be normalized (see `inside`).
        """
        ...

    def to_json(self) -> Json:
        """Return the parameters (fitted ones included); `from_json` reads them back."""
        ...


# name -> module of this package; each holds `CARD`, and intensity methods the class `METHOD`.
MODULES: dict[str, str] = {
    "mad": "intensity.mad",
    "mad-tanh": "intensity.mad_tanh",
    "zscore": "intensity.zscore",
    "robust": "intensity.robust",
    "percentile": "intensity.percentile",
    "display": "intensity.display",
    "window": "intensity.window",
    "nyul": "intensity.nyul",
    "whitestripe": "intensity.white_stripe",
    "fcm": "intensity.fcm",
    "kde": "intensity.kde",
    "least-squares": "intensity.least_squares",
    "quantile": "intensity.quantile",
    "none": "intensity.as_is",
    "n4": "spatial.n4",
    "n3": "spatial.n3",
    "slice-slope": "spatial.slice_slope",
    "slice-chain": "spatial.slice_chain",
    "inormalize": "intensity.inormalize",
    "polynomial": "intensity.polynomial",
    "minc": "spatial.minc_preset",
    "macenko": "stain.macenko",
    "reinhard": "stain.reinhard",
    "vahadane": "stain.vahadane",
    "combat": "table.combat",
    "covbat": "table.covbat",
}


def module_of(name: str) -> Any:
    """Return the module of a method.

    Raises:
        UsageError: unknown name.
    """
    if name not in MODULES:
        raise UsageError(
            f"method must be one of {', '.join(MODULES)}, got '{name}'."
            f"{did_you_mean(name, MODULES)}"
        )
    return import_module(f"vesalius.normalization.{MODULES[name]}")


def cards() -> list[Card]:
    """Return the card of every method, in the order of the registry."""
    return [module_of(name).CARD for name in MODULES]


SAMPLE = 1 << 18  # order statistics of larger masks come from a sample
_CHUNK = 1 << 18  # voxels that are looked at together


def inside(values: Array, mask: Array, *, least: int = 2) -> Array:
    """Return the values in the mask, flat, float64: the door of methods that need them all.

    Raises:
        UsageError: the mask is not Boolean or has another shape.
        NormalizationRefused: `empty`, `non-finite`, `empty-mask`, `too-few-voxels` (fewer than
            `least`) or `constant`.
    """
    found = np.concatenate([*_chunks(values, mask)])
    _refuse(
        found.size,
        least,
        bool(np.isfinite(found).all()),
        float(found.min()) if found.size else 0.0,
        float(found.max()) if found.size else 0.0,
    )
    out: Array = found.astype(np.float64)
    return out


def masked_sample(values: Array, mask: Array, *, least: int = 2) -> Array:
    """Return at most `SAMPLE` of the values in the mask, evenly strided, after checking them all.

    The door of methods that stream: same arguments and errors as `inside`.
    """
    count, finite, low, high = 0, True, np.inf, -np.inf
    parts: list[Array] = []
    total = int(np.count_nonzero(mask))
    step = max(1, -(-total // SAMPLE))
    for part in _chunks(values, mask):
        if part.size:
            parts.append(part[-count % step :: step])
            count += part.size
            # the extremes of a part with a NaN are NaN
            first, last = float(part.min()), float(part.max())
            finite = finite and np.isfinite(first) and np.isfinite(last)
            low, high = min(low, first), max(high, last)
    _refuse(count, least, finite, low, high)
    return np.concatenate(parts)


def masked_chunks(values: Array, mask: Array) -> Iterator[Array]:
    """Yield the values in the mask in flat parts of some 2^18 voxels of the image."""
    yield from _chunks(values, mask)


def _chunks(values: Array, mask: Array) -> Iterator[Array]:
    values = np.asarray(values)
    if values.size == 0:
        raise NormalizationRefused("empty", f"the image is empty: shape {values.shape}")
    if mask.dtype != np.bool_ or mask.shape != values.shape:
        raise UsageError(
            f"mask must be Boolean of shape {values.shape}, got {mask.dtype} {mask.shape}"
        )
    if values.flags.f_contiguous:  # walk in the order of memory
        values, mask = values.T, mask.T
    flat, chosen = values.reshape(-1), mask.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK][chosen[start : start + _CHUNK]]


def _refuse(count: int, least: int, finite: bool, low: float, high: float) -> None:
    if count == 0:
        raise NormalizationRefused("empty-mask", "the fitting mask holds no voxel")
    if not finite:
        raise NormalizationRefused("non-finite", "values in the mask are NaN or infinite")
    if count < least:
        raise NormalizationRefused(
            "too-few-voxels", f"the fitting mask holds {count} voxels, at least {least} needed"
        )
    if low == high:
        raise NormalizationRefused("constant", f"every value in the mask is {low:g}")


class Fit(Protocol):
    """What a fitted method gathers from training images: constant memory, mergeable.

    Sums are kept as whole numbers (fixed point) and histograms as counts, so that the result is
    the same, bit for bit, in whatever order and on however many machines the images were added.
    An instance can be pickled.
    """

    def add(self, values: Array, mask: Array) -> None:
        """Take in one training image; arguments as in `Method.solve`."""
        ...

    def merge(self, other: Any) -> None:
        """Take in what another instance gathered."""
        ...

    def finish(self) -> Method:
        """Return the fitted method.

        Raises:
            DataError: nothing was added.
        """
        ...
