# SPDX-License-Identifier: Apache-2.0
"""Intervals: a percentile bootstrap that draws patients, never single images (law 8).

Images of one patient resemble each other, so a draw takes or leaves all of them together
(Field & Welsh 2007, "Bootstrapping clustered data"). A draw is a row of case weights, which lets
every statistic of this room be computed for hundreds of draws at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.results import Estimate
from vesalius.types import Array

DRAWS = 2000
LEVEL = 0.95
FEW_PATIENTS = 20
_WEIGHTS_PER_CHUNK = 2_000_000  # 16 MB of weights at a time

# (draws, cases) weights -> (draws, statistics)
Statistic = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Several scores of the same cases as one function of the cases' weights.

    Attributes:
        names: `(metric, label)` of each; label `` stands for all classes or structures.
        of: weights `(draws, cases)` -> values `(draws, len(names))`, NaN where undefined.
        cases: how many cases it weighs.
    """

    names: tuple[tuple[str, str], ...]
    of: Statistic
    cases: int

    def values(self) -> Array:
        """Return the scores of the cases as they are, `(len(names),)`."""
        values: Array = self.of(np.ones((1, self.cases)))[0]
        return values


def joined(*parts: Statistics) -> Statistics:
    """Return the scores of several tables over the same cases, side by side."""
    return Statistics(
        tuple(name for part in parts for name in part.names),
        lambda weights: np.concatenate([part.of(weights) for part in parts], axis=1),
        parts[0].cases,
    )


def mean_of_defined(table: Array) -> Array:
    """Return each row's mean over its finite entries, NaN where there is none."""
    finite = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        means: Array = np.where(finite, table, 0).sum(1) / finite.sum(1)
    return means


def patient_index(patients: Sequence[Any] | Array, n: int) -> tuple[Array, int]:
    """Return each case's patient as an integer `(n,)` and the number of patients.

    A case whose patient is unknown (None or empty) counts as a patient of its own.
    """
    if len(patients) != n:
        raise UsageError(f"patients must name one patient per case: {len(patients)} for {n} cases")
    known: dict[str, int] = {}
    index = np.empty(n, np.int64)
    for row, name in enumerate(patients):
        named = name is not None and name == name and str(name) != ""
        index[row] = known.setdefault(f"n{name}" if named else f"#{row}", len(known))
    return index, len(known)


def patient_draws(
    statistic: Statistic,
    patients: Sequence[Any] | Array,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Array:
    """Return `statistic` on `draws` resamplings of the patients, `(draws, statistics)`.

    `statistic` receives weights `(some draws, cases)`: how often each case was drawn. It returns
    NaN where it is undefined for a draw (for example no case of a class).
    """
    if draws < 1:
        raise UsageError(f"draws must be at least 1, got {draws}")
    index, count = patient_index(patients, len(patients))
    if not count:
        raise UsageError("an interval needs at least one case, got none")
    generator = np.random.default_rng(seed)
    chunk = max(1, min(draws, _WEIGHTS_PER_CHUNK // max(len(index), count)))
    parts = []
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        drawn = generator.integers(0, count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        parts.append(statistic(times[:, index].astype(np.float64)))
    return np.concatenate(parts)


def estimates(
    statistics: Statistics,
    patients: Sequence[Any] | Array,
    describe: Callable[[str, str, float], dict[str, Any]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return the `Estimate` of each score, all from the same draws.

    `describe(name, label, value)` gives what `estimate` takes besides: unit, baseline, note.
    """
    index, n_patients = patient_index(patients, statistics.cases)
    values = statistics.values()
    samples = patient_draws(statistics.of, index, draws=draws, seed=seed)
    return [
        estimate(
            name, values[column], samples[:, column], n=statistics.cases, n_patients=n_patients,
            label=label, **describe(name, label, float(values[column])),
        )
        for column, (name, label) in enumerate(statistics.names)
    ]  # fmt: skip


def estimate(
    name: str,
    value: float,
    samples: Array,
    *,
    n: int,
    n_patients: int,
    independent: int | None = None,
    bounded: bool = True,
    label: str = "",
    unit: str = "",
    baseline: float | None = None,
    baseline_name: str = "",
    note: str = "",
) -> Estimate:
    """Return the `Estimate` of one score from its value and its draws `(draws,)`.

    Where every draw gives the same value the percentiles would claim certainty. For a score
    within [0, 1] (`bounded`) that stands at 0 or 1, the exact binomial bound on `independent`
    patients (default `n_patients`) is given instead: the mean of a variable within [0, 1] of which
    m independent draws were all 1 is at least 0.025^(1/m) with 97.5 % confidence (Clopper &
    Pearson 1934). Otherwise the interval is None, and the note says why.
    """
    finite = samples[np.isfinite(samples)]
    low: float | None = None
    high: float | None = None
    notes = [note] if note else []
    method = f"patient bootstrap, {len(samples)} draws"
    if not np.isfinite(value):
        return Estimate(
            name, None, None, None, n, n_patients, label, unit,
            _number(baseline), baseline_name, "", note or "undefined on these cases",
        )  # fmt: skip
    if n_patients < 2:
        method = ""
        notes.append("one patient: no interval")
    elif len(finite) and np.ptp(finite) > 1e-12:
        tail = 50 * (1 - LEVEL)
        low, high = (float(bound) for bound in np.percentile(finite, [tail, 100 - tail]))
        if len(finite) < len(samples):
            notes.append(f"draws in which it is undefined: {len(samples) - len(finite)}")
        if n_patients < FEW_PATIENTS:
            notes.append(f"only {n_patients} patients: the interval is rough")
    elif bounded and value in (0.0, 1.0):
        patients = max(1, n_patients if independent is None else independent)
        bound = ((1 - LEVEL) / 2) ** (1 / patients)
        low, high = (bound, 1.0) if value else (0.0, 1 - bound)
        method = f"exact binomial bound on {patients} patients"
    else:
        method = ""
        notes.append("every draw gives the same value: no interval")
    return Estimate(
        name, float(value), low, high, n, n_patients, label, unit,
        _number(baseline), baseline_name, method, "; ".join(notes),
    )  # fmt: skip


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
