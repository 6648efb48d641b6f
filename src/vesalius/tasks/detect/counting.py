# SPDX-License-Identifier: Apache-2.0
"""From candidates and density to a count with an interval, by rules fitted on validation rows.

A count is the number of candidates at or above a threshold, the sum of the density map on a line of
least absolute deviations, or the mean of both: what was nearest to the truth on validation images.
A candidate's probability is its score through a logistic curve (Platt 1999). How far a count may
be off is the standard deviation of the sum of independent candidates (the Poisson binomial
distribution) and of the objects that have no candidate, times a factor that makes the stated share
of intervals hold: split conformal prediction with a normalized score (Lei et al., JASA 2018), on
rows that serve nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from vesalius.errors import DataError
from vesalius.metrics.detection import match
from vesalius.tasks.detect.boxes import Boxes
from vesalius.tasks.detect.curves import fit_line, fit_logistic, logit, sigmoid
from vesalius.types import Array, Json

LEVEL = 0.9
LEAST_SPREAD = 0.2  # objects: no image is counted without doubt
SOURCES = ("detections", "density", "both")
_GRID = np.round(np.arange(0.05, 0.951, 0.01), 2)
_SMOOTH = 3  # neighbors on the grid over which an error is averaged, either side


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the network says of one image: scored candidates, and `(classes,)` sums of density."""

    candidates: Boxes
    density: Array

    def scores(self, label: int) -> Array:
        """Return the scores of one class's candidates."""
        scores: Array = self.candidates.scores[self.candidates.labels == label]
        return scores


@dataclass(frozen=True, slots=True)
class Count:
    """How many objects of a class an image shows.

    Attributes:
        label: the class.
        count: objects found.
        low, high: the interval of 90 %; high is None where it has no bound.
        expected: the sum of the probabilities of all candidates, and what has none.
    """

    label: str
    count: int
    low: int
    high: int | None
    expected: float

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one class is counted.

    Attributes:
        source: what is counted, a name of `SOURCES`.
        threshold: score from which on a candidate counts.
        slope, intercept: of the logistic curve over the logit of the score.
        unseen: objects an image, on average, that have no candidate.
        scale, shift: of the line from the density's sum to a count.
        factor: half-width of the interval in standard deviations; None where too few rows were
            left for the level, and the count has no upper bound.
    """

    source: str
    threshold: float
    slope: float
    intercept: float
    unseen: float
    scale: float = 1.0
    shift: float = 0.0
    factor: float | None = None

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the rule that `to_json` gave."""
        return cls(**record)

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    def probabilities(self, scores: Array) -> Array:
        """Return the probability that each candidate is an object."""
        return sigmoid(self.slope * logit(scores) + self.intercept)

    def number(self, scores: Array, density: float) -> int:
        """Return the count of a class from its candidates' scores `(n,)` and its density's sum."""
        found = int((scores >= self.threshold).sum())
        line = self.scale * density + self.shift
        return max(0, round(float(_mixed(self.source, found, line))))

    def count(self, label: str, scores: Array, density: float) -> Count:
        """Return the count with its interval."""
        number = self.number(scores, density)
        expected = round(float(self.probabilities(scores).sum()) + self.unseen, 3)
        if self.factor is None:
            return Count(label, number, 0, None, expected)
        half = self.factor * self.spread(scores)
        low, high = math.ceil(number - half - 1e-9), math.floor(number + half + 1e-9)
        return Count(label, number, max(0, low), high, expected)

    def spread(self, scores: Array) -> float:
        """Return the standard deviation of the number of objects, given the candidates."""
        p = self.probabilities(scores)
        return max(LEAST_SPREAD, math.sqrt(float((p * (1 - p)).sum()) + self.unseen))


def fit_rules(found: Sequence[Evidence], truth: Sequence[Boxes], classes: int) -> list[Rule]:
    """Return one rule a class, without the factor of its interval.

    Args:
        found: of each image.
        truth: each image's objects.
        classes: how many.
    """
    if not found:
        raise DataError("no validation image is left to choose thresholds on")
    return [_fit_rule(found, truth, label) for label in range(classes)]


def fit_factors(
    rules: Sequence[Rule], found: Sequence[Evidence], truth: Sequence[Boxes]
) -> list[Rule]:
    """Return the rules with the factor that makes `LEVEL` of the intervals hold.

    Args:
        rules: of `fit_rules`.
        found, truth: of images that served neither the network nor the rules.
    """
    out = []
    for label, rule in enumerate(rules):
        distances = []
        for one, true in zip(found, truth, strict=True):
            scores = one.scores(label)
            number = rule.number(scores, float(one.density[label]))
            distances.append(abs(number - int((true.labels == label).sum())) / rule.spread(scores))
        place = math.ceil((len(distances) + 1) * LEVEL)
        factor = None if place > len(distances) else float(sorted(distances)[place - 1])
        out.append(replace(rule, factor=factor))
    return out


def _fit_rule(found: Sequence[Evidence], truth: Sequence[Boxes], label: int) -> Rule:
    scores = [one.scores(label) for one in found]
    density = np.array([float(one.density[label]) for one in found])
    objects = [true.corners[true.labels == label] for true in truth]
    counts = np.array([len(corners) for corners in objects])
    numbers = np.array([[(held >= t).sum() for t in _GRID] for held in scores])  # (images, grid)
    scale, shift = fit_line(density, counts)
    line = scale * density + shift
    best: tuple[float, str, float] | None = None
    for source in SOURCES:
        guess = np.round(_mixed(source, numbers, line[:, None])).clip(0)
        error = _smooth(np.abs(guess - counts[:, None]).mean(axis=0))
        places = np.flatnonzero(error <= error.min() + 1e-12)
        if best is None or error.min() < best[0] - 1e-12:
            best = float(error.min()), source, float(_GRID[places[len(places) // 2]])
    assert best is not None  # noqa: S101 - there are sources
    hits = [
        match(one.candidates.corners[one.candidates.labels == label], held, corners) >= 0
        for one, held, corners in zip(found, scores, objects, strict=True)
    ]
    slope, intercept = fit_logistic(logit(np.concatenate(scores)), np.concatenate(hits))
    missed = (counts.sum() - sum(int(hit.sum()) for hit in hits)) / len(counts)
    numbers_of = (slope, intercept, float(missed), scale, shift)
    return Rule(best[1], best[2], *(round(value, 6) for value in numbers_of))


def _mixed(source: str, found: Any, density: Any) -> Any:
    """Return what a source says, of numbers or arrays."""
    if source == "detections":
        return found
    return density + 0 * found if source == "density" else (found + density) / 2


def _smooth(error: Array) -> Array:
    """Return the mean over neighboring thresholds, so that no lucky one is chosen."""
    padded = np.pad(error, _SMOOTH, mode="edge")
    kernel = np.full(2 * _SMOOTH + 1, 1 / (2 * _SMOOTH + 1))
    return np.convolve(padded, kernel, "valid")
