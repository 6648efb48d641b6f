# SPDX-License-Identifier: Apache-2.0
"""Transfers: the curve that one method solved for one channel, as a record that can be saved.

A transfer maps every value of the channel, inside the fitting mask and outside it. It is all that
has to be kept to apply the same normalization again, or, where the curve is strictly rising, to
undo it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from vesalius.errors import RunError, UsageError
from vesalius.types import Array, Json

_CHUNK = 1 << 16  # values that are worked on at a time: temporaries stay in the cache


class Transfer(Protocol):
    """A curve with its inverse and its record."""

    def apply(self, values: Array) -> Array:
        """Return the values (any shape) on the common scale, float32."""
        ...

    def inverse(self, values: Array) -> Array:
        """Return the values (any shape) in the image's own unit, float32.

        What was clipped comes back as the limit at which it was clipped.

        Raises:
            UsageError: the curve has no inverse.
        """
        ...

    def to_json(self) -> Json:
        """Return the record; `from_json` reads it back."""
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """y = (x - center) / scale, x first clipped to [low, high] where these are finite.

    Attributes:
        center, scale: in the image's unit; scale > 0.
        low, high: limits in the image's unit, or None.
    """

    center: float
    scale: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not (self.scale > 0 and np.isfinite(self.scale) and np.isfinite(self.center)):
            raise UsageError(f"a transfer needs a finite center and scale > 0, got {self}")

    def apply(self, values: Array) -> Array:
        """Return `(clip(x) - center) / scale`, float32."""

        def curve(x: Array) -> Array:
            if self.low is not None or self.high is not None:
                np.clip(x, self.low, self.high, out=x)
            x -= self.center
            x /= self.scale
            return x

        return _each(values, curve)

    def inverse(self, values: Array) -> Array:
        """Return `y * scale + center`, float32."""
        out: Array = (np.asarray(values, np.float64) * self.scale + self.center).astype(np.float32)
        return out

    def to_json(self) -> Json:
        """Return the record."""
        return {"curve": "linear", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Tanh:
    """y = (s * tanh((x - center) / (scale * s)) - mean) / std: a smooth clip at `s` scales."""

    center: float
    scale: float
    limit: float
    mean: float
    std: float

    def apply(self, values: Array) -> Array:
        """Return the smoothly clipped values, float32."""

        def curve(x: Array) -> Array:
            soft = self.limit * np.tanh((x - self.center) / (self.scale * self.limit))
            y: Array = (soft - self.mean) / self.std
            return y

        return _each(values, curve)

    def inverse(self, values: Array) -> Array:
        """Return the values before the smooth clip; what reached the limit comes back near it."""
        y = (np.asarray(values, np.float64) * self.std + self.mean) / self.limit
        edge = 1 - 1e-7
        z = np.arctanh(np.clip(y, -edge, edge)) * self.limit
        out: Array = (z * self.scale + self.center).astype(np.float32)
        return out

    def to_json(self) -> Json:
        """Return the record."""
        return {"curve": "tanh", **asdict(self)}


@dataclass(frozen=True, slots=True)
class PiecewiseLinear:
    """Straight lines between knots `(x, y)`, x strictly rising; outside, as `beyond` says.

    Attributes:
        x, y: knots, at least two.
        beyond: `extend` carries the first and the last line on; `clip` holds their ends.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    beyond: str = "extend"

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) < 2 or not (np.diff(self.x) > 0).all():
            raise UsageError("a piecewise linear transfer needs at least two knots with rising x")
        if self.beyond not in ("extend", "clip"):
            raise UsageError(f"beyond must be extend or clip, got '{self.beyond}'")

    def apply(self, values: Array) -> Array:
        """Return the interpolated values, float32."""
        return _interpolate(values, self.x, self.y, extend=self.beyond == "extend")

    def inverse(self, values: Array) -> Array:
        """Return the values in the image's unit, float32.

        Raises:
            UsageError: the curve is flat or falls somewhere.
        """
        if not (np.diff(self.y) > 0).all():
            raise UsageError("this curve is not strictly rising: it has no inverse")
        return _interpolate(values, self.y, self.x, extend=self.beyond == "extend")

    def to_json(self) -> Json:
        """Return the record."""
        return {"curve": "piecewise", "x": [*self.x], "y": [*self.y], "beyond": self.beyond}


@dataclass(frozen=True, slots=True)
class Polynomial:
    """y = sum of coefficients[n] * x**n, clipped to [low, high]."""

    coefficients: tuple[float, ...]
    low: float
    high: float

    def apply(self, values: Array) -> Array:
        """Return the polynomial of the values, float32."""

        def curve(x: Array) -> Array:
            y = np.polynomial.polynomial.polyval(x, self.coefficients)
            clipped: Array = np.clip(y, self.low, self.high)
            return clipped

        return _each(values, curve)

    def inverse(self, values: Array) -> Array:  # noqa: ARG002 - the interface's argument
        """Refuse: a polynomial need not rise everywhere.

        Raises:
            UsageError: always.
        """
        raise UsageError("a polynomial histogram fit has no inverse; keep the source")

    def to_json(self) -> Json:
        """Return the record."""
        return {"curve": "polynomial", **asdict(self), "coefficients": [*self.coefficients]}


def from_json(record: Json) -> Transfer:
    """Return the transfer of a saved record.

    Raises:
        RunError: an unknown curve.
    """
    held = {name: value for name, value in record.items() if name != "curve"}
    match record.get("curve"):
        case "linear":
            return Linear(**held)
        case "tanh":
            return Tanh(**held)
        case "piecewise":
            return PiecewiseLinear(tuple(held["x"]), tuple(held["y"]), held["beyond"])
        case "polynomial":
            return Polynomial(tuple(held["coefficients"]), held["low"], held["high"])
        case other:
            raise RunError(f"the record names an unknown curve {other!r}; use the newer version")


def _interpolate(
    values: Array, x: tuple[float, ...], y: tuple[float, ...], *, extend: bool
) -> Array:
    xs, ys = np.asarray(x), np.asarray(y)

    def curve(part: Array) -> Array:
        mapped: Array = np.interp(part, xs, ys)
        if extend:
            for end, near in ((0, 1), (-1, -2)):
                slope = (ys[end] - ys[near]) / (xs[end] - xs[near])
                outside = part < xs[0] if end == 0 else part > xs[-1]
                mapped[outside] = ys[end] + slope * (part[outside] - xs[end])
        return mapped

    return _each(values, curve)


def _each(values: Array, curve: Callable[[Array], Array]) -> Array:
    """Return `curve` of the values, float32; it is handed float64 parts that it may overwrite."""
    values = np.asarray(values)
    if values.flags.f_contiguous and not values.flags.c_contiguous:  # walk in memory's order
        return _each(values.T, curve).T
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty(flat.shape, np.float32)
    for start in range(0, flat.size, _CHUNK):
        out[start : start + _CHUNK] = curve(flat[start : start + _CHUNK].astype(np.float64))
    return out.reshape(values.shape)
