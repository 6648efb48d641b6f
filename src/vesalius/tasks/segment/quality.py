# SPDX-License-Identifier: Apache-2.0
"""The Dice score to be expected of a new image, learned on validation images.

What the network expects of itself (`doubt`) is mapped to the Dice score by a line, for each
structure, that a few odd images do not move (Theil-Sen: Sen, JASA 1968). An image is flagged for
review where that falls below a stated level, or below all that validation showed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.types import Array, Json

LEVEL = 0.7  # Dice below which an image is to be looked at
FEWEST = 8  # validation images for a line; with fewer the network's own expectation is kept
_BAND = 0.1  # of validation images lie below the lower bound


@dataclass(frozen=True, slots=True)
class Quality:
    """One structure's line: `dice = intercept + slope * expected`, and its spread.

    Attributes:
        intercept, slope: of the line.
        below: how far under the line the worst tenth of validation images lies.
        lowest: smallest expectation among them.
        n: validation images; 0 where there were too few.
    """

    intercept: float = 0.0
    slope: float = 1.0
    below: float = 0.0
    lowest: float = 0.0
    n: int = 0

    @classmethod
    def fit(cls, expected: Sequence[float], dice: Sequence[float]) -> Quality:
        """Fit it on validation images; a falling line is none, and its mean is taken."""
        from scipy.stats import theilslopes

        x, y = np.asarray(expected, float), np.asarray(dice, float)
        if len(x) < FEWEST:
            return cls()
        slope = float(theilslopes(y, x)[0]) if np.ptp(x) > 1e-6 else 0.0
        slope = max(0.0, slope)
        intercept = float(np.median(y - slope * x))
        gaps = np.sort(y - np.clip(intercept + slope * x, 0, 1))
        # The finite-sample quantile of conformal prediction: as likely for the next image.
        place = max(0, int(np.floor(_BAND * (len(x) + 1))) - 1)
        return cls(intercept, slope, max(0.0, float(-gaps[place])), float(x.min()), len(x))

    def predict(self, expected: float) -> float:
        """Return the Dice score to be expected."""
        return float(np.clip(self.intercept + self.slope * expected, 0, 1))

    def doubts(self, name: str, expected: float) -> str:
        """Return why the structure is to be looked at, or ``."""
        dice = self.predict(expected)
        if dice < LEVEL:
            return f"{name}: a Dice score of {dice:.2f} is expected, below {LEVEL:g}"
        if self.n and expected < self.lowest:
            return f"{name}: less sure than in any of {self.n} validation images"
        return ""

    def to_json(self) -> Json:
        """Return what `Quality(**held)` rebuilds."""
        return {name: getattr(self, name) for name in self.__slots__}


def fit_quality(expected: Array, dice: Array) -> list[Quality]:
    """Return one line a structure from `(cases, structures)` tables."""
    return [Quality.fit(a, b) for a, b in zip(expected.T, dice.T, strict=True)]


def on_one_level(expected: Array, folds: Sequence[int]) -> Array:
    """Return what the networks of folds expect of themselves, moved to one level.

    Networks differ in how sure they are, whatever the image: of three on the hippocampus one
    expected 0.85, another 0.67 of the same images. A line through all of it would learn which
    network answered. So each fold's median is moved to the mean of all folds' medians, which is
    about the level of their mean.

    Args:
        expected: `(cases, structures)`.
        folds: of the cases.
    """
    place = np.asarray(folds)
    medians = {fold: np.median(expected[place == fold], axis=0) for fold in set(folds)}
    level = np.mean(list(medians.values()), axis=0)
    moved: Array = expected + np.array([level - medians[fold] for fold in folds])
    return moved
