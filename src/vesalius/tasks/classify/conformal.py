# SPDX-License-Identifier: Apache-2.0
"""Conformal label sets: they hold the true class at a promised rate.

Vovk, Gammerman, Shafer: Algorithmic learning in a random world, 2005 (the finite-sample quantile,
class-conditional sets). Sadinle, Lei, Wasserman: Least ambiguous set-valued classifiers, JASA 2019
(LAC). Romano, Sesia, Candès: Classification with valid and adaptive coverage, NeurIPS 2020 (APS).
Angelopoulos et al.: Uncertainty sets for image classifiers, ICLR 2021 (RAPS). Lu, Angelopoulos,
Pomerantz: Improving trustworthiness of AI disease severity rating, MICCAI 2022 (ordinal sets).

A row's score says how badly a class fits it; the threshold is the ceil((n + 1) * coverage)-th
smallest score of the true classes of n calibration rows. A new row's set then holds its truth with
at least that probability, whatever the classifier, if rows are exchangeable: one row per patient,
or as many of each in calibration as in use.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from vesalius.errors import UsageError
from vesalius.types import Array, Json

SET_METHODS = ("lac", "aps", "raps")
RAPS_PENALTY, RAPS_FREE = 0.05, 1  # added per rank beyond the first ones that are free
CLASS_ROWS = 20  # of a class, for a threshold of its own


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Thresholds from which a row's label set follows.

    Attributes:
        coverage: promised rate, for example 0.9.
        method: `lac` (smallest sets on average), `aps` (rate holds more evenly over easy and hard
            rows), `raps` (APS with fewer large sets).
        ordinal: sets are runs of neighboring classes.
        thresholds: `(classes,)` largest score that is still in the set; None: always in the set.
        n: calibration rows.
        seed: of the draws that APS breaks ties with; a row's draw depends on the seed and the
            row alone.
        note: where the promise costs the whole label set, or is not made for a class.
    """

    coverage: float
    method: str
    ordinal: bool
    thresholds: tuple[float | None, ...]
    n: int
    seed: int
    note: str = ""

    @classmethod
    def fit(
        cls,
        probabilities: Array,
        truth: Sequence[int] | Array,
        *,
        coverage: float = 0.9,
        method: str = "lac",
        ordinal: bool = False,
        class_conditional: bool = False,
        minimum: int = CLASS_ROWS,
        seed: int = 0,
    ) -> Self:
        """Fit on calibration rows that serve nothing else (not the temperature either).

        Args:
            probabilities: `(n, classes)`, rows that sum to 1.
            truth: `(n,)` class indices.
            coverage: promised rate, above 0 and below 1.
            method: one of `SET_METHODS`.
            ordinal: make sets contiguous; classes are in order.
            class_conditional: keep the rate within each class that has at least `minimum` rows
                and enough for the rate; the other classes keep it together.
            minimum: see `class_conditional`.
            seed: of the ties.

        Raises:
            UsageError: a bad argument, shape, probability or class index.
        """
        if method not in SET_METHODS:
            raise UsageError(f"method must be one of {', '.join(SET_METHODS)}, got '{method}'")
        check_coverage(coverage)
        table = _probabilities(probabilities)
        found, k = _class_indices(truth, table), table.shape[1]
        own = _scores(table, method, ordinal, seed)[np.arange(len(table)), found]
        enough = max(minimum, rows_needed(coverage))
        group = np.full(k, -1)  # classes with too few rows share one threshold
        if class_conditional:
            large = np.bincount(found, minlength=k) >= enough
            group[large] = np.flatnonzero(large)
        thresholds = [conformal_threshold(own[group[found] == g], coverage) for g in group]
        small = [label for label in range(k) if group[label] < 0]
        notes = []
        if class_conditional and small:
            notes.append(
                f"classes {small} have fewer than {enough} calibration rows each: the rate is "
                "promised for all of them together"
            )
        if None in thresholds:
            which = "every class is" if len(small) == k else "those classes are"
            notes.append(
                f"{int(np.isin(found, small).sum())} calibration rows are too few for "
                f"{coverage:.0%}, which needs {rows_needed(coverage)}: {which} in every set"
            )
        return cls(coverage, method, ordinal, tuple(thresholds), len(own), seed, "; ".join(notes))

    def apply(self, probabilities: Array) -> Array:
        """Return Boolean sets `(n, classes)`; the most probable class is always in.

        Raises:
            UsageError: another number of classes than it was fitted on, or no probabilities.
        """
        table = _probabilities(probabilities)
        if table.shape[1] != len(self.thresholds):
            raise UsageError(
                f"sets were fitted on {len(self.thresholds)} classes, got {table.shape[1]}"
            )
        limits = np.array([np.inf if t is None else t for t in self.thresholds])
        sets = _scores(table, self.method, self.ordinal, self.seed) <= limits
        sets[np.arange(len(table)), table.argmax(axis=1)] = True
        if self.ordinal:  # class-conditional thresholds may leave a gap
            above = np.maximum.accumulate(sets, axis=1)
            sets = above & np.maximum.accumulate(sets[:, ::-1], axis=1)[:, ::-1]
        return np.asarray(sets)

    def report(self, probabilities: Array, truth: Sequence[int] | Array) -> Json:
        """Return how the promise was kept on new rows, JSON-serializable.

        `expected` is where `coverage`, the share of rows whose set holds the truth, lies in 95 %
        of fits with one threshold; it may lie above where the most probable class alone is right
        more often (`top_class`). `sizes[s]` is the number of sets of s classes; `by_class` is None
        where a class has no row.
        """
        sets = self.apply(probabilities)
        found = _class_indices(truth, sets)
        if not len(found):
            raise UsageError("a report needs at least one row, got none")
        held = sets[np.arange(len(found)), found]
        rows = [held[found == label] for label in range(sets.shape[1])]
        return {
            "promised": self.coverage,
            "coverage": float(held.mean()),
            "top_class": float((np.argmax(probabilities, axis=1) == found).mean()),
            "expected": list(expected_coverage(self.coverage, self.n, len(found))),
            "n": len(found),
            "mean_size": float(sets.sum(axis=1).mean()),
            "sizes": np.bincount(sets.sum(axis=1), minlength=sets.shape[1] + 1).tolist(),
            "by_class": [float(part.mean()) if len(part) else None for part in rows],
        }

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return the sets that `to_json` wrote."""
        return cls(**{**held, "thresholds": tuple(held["thresholds"])})


def conformal_threshold(scores: Array, coverage: float) -> float | None:
    """Return the ceil((n + 1) * coverage)-th smallest of `(n,)` scores, None where n is less."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return None if rank > len(scores) else float(np.sort(scores)[rank - 1])


def rows_needed(coverage: float) -> int:
    """Return the fewest calibration rows for which there is a threshold at `coverage`."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def expected_coverage(
    coverage: float, n: int, n_new: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Return within what share of `n_new` rows the truth falls into its set, at `level`.

    With n calibration rows and scores without ties the count is beta-binomial (Vovk, Conditional
    validity of inductive conformal predictors, ACML 2012).
    """
    from scipy.special import betaln

    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        return 1.0, 1.0
    held, other = np.arange(n_new + 1), n + 1 - rank
    logs = betaln(held + rank, n_new - held + other) - betaln(rank, other)
    shares = np.exp(logs - betaln(held + 1, n_new - held + 1)) / (n_new + 1)
    low, high = np.searchsorted(np.cumsum(shares), [(1 - level) / 2, (1 + level) / 2])
    return int(low) / n_new, min(int(high), n_new) / n_new


def _scores(table: Array, method: str, ordinal: bool, seed: int) -> Array:
    """Return how badly each class fits each row, `(n, classes)`."""
    if method == "lac":
        if ordinal:  # the smallest run of classes that holds the plain set
            left = np.maximum.accumulate(table, axis=1)
            right = np.maximum.accumulate(table[:, ::-1], axis=1)[:, ::-1]
            table = np.minimum(left, right)
        return np.asarray(1 - table)
    order = _ordinal_order(table) if ordinal else np.argsort(-table, axis=1, kind="stable")
    sorted_table = np.take_along_axis(table, order, axis=1)
    mass = np.cumsum(sorted_table, axis=1) - _draws(table, seed)[:, None] * sorted_table
    if method == "raps":
        mass += RAPS_PENALTY * np.maximum(np.arange(1, table.shape[1] + 1) - RAPS_FREE, 0)
    out = np.empty_like(mass)
    np.put_along_axis(out, order, mass, axis=1)
    return np.asarray(out)


def _ordinal_order(table: Array) -> Array:
    """Return each row's classes from the most probable outward, the likelier neighbor first."""
    n, k = table.shape
    rows = np.arange(n)
    padded = np.pad(table, ((0, 0), (1, 1)), constant_values=-1.0)
    low = high = table.argmax(axis=1) + 1  # columns of `padded`
    order = [low - 1]
    for _ in range(k - 1):
        down = padded[rows, low - 1] > padded[rows, high + 1]
        low, high = np.where(down, low - 1, low), np.where(down, high, high + 1)
        order.append(np.where(down, low, high) - 1)
    return np.stack(order, axis=1)


def _draws(table: Array, seed: int) -> Array:
    """Return one number of 0 to 1 per row, from the seed and the row's probabilities alone."""
    rounded = np.ascontiguousarray(table.round(6) + 0.0)
    key = seed.to_bytes(8, "little", signed=True)
    words = [hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rounded]
    return np.frombuffer(b"".join(words), "<u8").astype(np.float64) / 2.0**64


def _probabilities(probabilities: Array) -> Array:
    table = np.asarray(probabilities, np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise UsageError(f"probabilities must be (n, classes) of 2 classes or more: {table.shape}")
    sums = table.sum(axis=1)
    if (table < 0).any() or not np.allclose(sums, 1, atol=1e-3):
        raise UsageError("probabilities must be rows of 0 to 1 that sum to 1; leave failures out")
    return table


def _class_indices(truth: Sequence[int] | Array, table: Array) -> Array:
    found, (n, k) = np.asarray(truth), table.shape
    if found.shape != (n,) or not np.isin(found, np.arange(k)).all():
        raise UsageError(f"truth must be {n} class indices of 0 to {k - 1}, got {found[:5]}")
    return found.astype(np.int64)


def check_coverage(coverage: float) -> None:
    """Raise `UsageError` unless `coverage` lies between 0 and 1."""
    if not 0 < coverage < 1:
        raise UsageError(f"coverage must be above 0 and below 1, got {coverage}")
