# SPDX-License-Identifier: Apache-2.0
"""Polynomial histogram fit: the cubic that brings an image's quantiles to a template's.

y = c0 + c1 x + c2 x^2 + c3 x^3, least squares over the 999 pairs of quantiles at 0.1, 0.2, ...
99.9 %, clamped to the template's outer two. V. Fonov, volume_pol (EZminc), with its 4
coefficients. A polynomial that falls somewhere would exchange tissues, or brighten the air: one
that does not rise over the range of the values in the mask, and over once that range to either
side, gives way to the next lower degree, down to the straight line, which always rises; the
transfer's coefficients show which. Declared laws: affine-invariant; order-preserving over the
range said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import DataError, NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Law
from vesalius.normalization.distances import histogram_distances
from vesalius.normalization.exact_mean import ExactMean
from vesalius.normalization.method import inside
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.transfer import Polynomial, Transfer
from vesalius.types import Array, Json

SHARES = tuple(n / 1000 for n in range(1, 1000))

CARD = Card(
    name="polynomial",
    title="polynomial that matches quantiles to a template's (MINC)",
    formula="y = c0 + c1 x + c2 x^2 + c3 x^3, least squares over 999 pairs of quantiles",
    source="Fonov, volume_pol (EZminc)",
    laws=frozenset({Law.AFFINE_INVARIANT, Law.ORDER_PRESERVING}),
    fitted=True,
)


@dataclass(frozen=True, slots=True)
class PolynomialFit:
    """A template's quantiles.

    Attributes:
        template: at 0.1, 0.2, ... 99.9 %, not falling.
        coefficients: of the polynomial, at least 2.
    """

    template: tuple[float, ...]
    coefficients: int = 4
    card: ClassVar[Card] = CARD

    def __post_init__(self) -> None:
        if len(self.template) != len(SHARES) or not (np.diff(self.template) >= 0).all():
            raise UsageError(
                f"template must be {len(SHARES)} quantiles that do not fall, got "
                f"{len(self.template)}"
            )
        if not self.template[-1] > self.template[0] or not 2 <= self.coefficients <= 8:
            raise UsageError(
                "the template's quantiles must differ and coefficients be 2 to 8, got "
                f"{self.template[0]} to {self.template[-1]} and {self.coefficients}"
            )

    @classmethod
    def to_template(cls, values: Array, mask: Array, *, coefficients: int = 4) -> Self:
        """Return the method whose template is one image in its mask.

        Raises:
            NormalizationRefused: see `method.inside`; `constant` where all quantiles are one.
        """
        fit = TemplateFit(coefficients=coefficients)
        fit.add(values, mask)
        return cls(fit.quantiles.mean(), coefficients)

    def solve(self, values: Array, mask: Array) -> Polynomial:
        """Return the curve for one channel; see `Method.solve`."""
        found = inside(values, mask)
        x, y = _quantiles(found), np.array(self.template)
        low, high = float(found.min()), float(found.max())
        degree, line = self.coefficients, None
        while line is None or not (degree == 1 or _rises(line, 2 * low - high, 2 * high - low)):
            degree -= 1
            line = np.polynomial.Polynomial.fit(x, y, degree)
        raw = np.zeros(self.coefficients)
        coefficients = line.convert(domain=(-1, 1), window=(-1, 1)).coef
        raw[: len(coefficients)] = coefficients
        return Polynomial(tuple(map(float, raw)), self.template[0], self.template[-1])

    def to_json(self) -> Json:
        """Return the record."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the method of a saved record."""
        return cls(**parameters(record, cls))


class TemplateFit:
    """The mean of the training images' quantiles; see `Fit`."""

    def __init__(self, *, coefficients: int = 4) -> None:
        self.coefficients = coefficients
        self.quantiles = ExactMean()

    def add(self, values: Array, mask: Array) -> None:
        """Take in one training image; refuses what `PolynomialFit.solve` refuses."""
        self.quantiles.add(_quantiles(inside(values, mask)))

    def merge(self, other: TemplateFit) -> None:
        """Take in what another instance gathered."""
        if other.coefficients != self.coefficients:
            raise UsageError(
                f"fits of {self.coefficients} and {other.coefficients} coefficients do not merge"
            )
        self.quantiles.merge(other.quantiles)

    def finish(self) -> PolynomialFit:
        """Return the fitted method.

        Raises:
            DataError: nothing was added.
        """
        if not self.quantiles.count:
            raise DataError("polynomial needs at least one training image, got none")
        mean = np.maximum.accumulate(self.quantiles.mean())
        return PolynomialFit(tuple(map(float, mean)), self.coefficients)


def report(
    values: Array, mask: Array, transfer: Transfer, template: Array, template_mask: Array
) -> Json:
    """Return KS and KL distances from the template, before and after the transfer."""
    found, wanted = inside(values, mask), inside(template, template_mask)
    return {
        "before": histogram_distances(found, wanted).to_json(),
        "after": histogram_distances(transfer.apply(found), wanted).to_json(),
    }


def _quantiles(values: Array) -> Array:
    found: Array = np.quantile(values, SHARES)
    if not found[-1] > found[0]:
        raise NormalizationRefused(
            "constant", f"all quantiles of the mask are {found[0]:g}; narrow it to the object"
        )
    return found


def _rises(line: np.polynomial.Polynomial, low: float, high: float) -> bool:
    """Return whether `line` rises all over [low, high]: its slope at the ends and at its turns."""
    slope = line.deriv()
    roots = np.asarray(slope.deriv().roots(), np.complex128)
    turns = roots.real[np.abs(roots.imag) < 1e-9 * (high - low)]
    inner = turns[(turns > low) & (turns < high)]
    return bool((slope(np.array([low, high, *inner])) > 0).all())


METHOD = PolynomialFit
FIT = TemplateFit
