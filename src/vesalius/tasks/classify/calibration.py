# SPDX-License-Identifier: Apache-2.0
"""Calibration of class probabilities: temperature, vector and Dirichlet scaling.

Guo et al.: On calibration of modern neural networks, ICML 2017 (temperature and vector scaling).
Alexandari, Kundaje, Shrikumar: Maximum likelihood with bias-corrected calibration, ICML 2020 (one
slope and a bias per class). Kull et al.: Beyond temperature scaling, NeurIPS 2019 (Dirichlet
calibration, off-diagonal and intercept regularization).

Every method is one affine map of the log-probabilities (or of a label's logit) before the softmax
(or the sigmoid): a slope for all classes; for `vector` also a bias and a slope's deviation per
class; for `dirichlet` also weights between classes. Parameters are the mode under normal priors,
which weigh as much as a few rows: separable rows, absent classes and 20 rows give finite answers.
Widths of the priors were chosen on rows that no benchmark scores: training rows of three MedMNIST
sets, and the temperature's on the calibration rows of 42 finished runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from vesalius.errors import UsageError
from vesalius.tasks.classify.method_choice import ONE_PATIENT, choose_method, patient_folds
from vesalius.types import Array, Json

METHODS = ("identity", "temperature", "vector", "dirichlet")  # from simple to rich
COLDEST, HOTTEST = 0.05, 20.0  # bounds of the temperature
ROWS = {"vector": 3, "dirichlet": 10}  # of the rarest class, for `auto` to try a method
FLOOR = float(np.log(1e-16))  # a smaller log-probability counts as this
_SD_LOG_TEMPERATURE = 0.3  # of the log-normal prior around 1
_SD_SLOPE, _SD_CROSS, _SD_BIAS = 0.2, 0.1, 0.5  # priors; slopes in units of the shared one


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A fitted calibration and the numbers that it was chosen by.

    Attributes:
        method: one of `METHODS`, or of `LABEL_METHODS` for a multi-label target.
        link: `softmax` (rows sum to 1) or `sigmoid` (labels are independent).
        weights: `(k, k)`, diagonal except for `dirichlet`; temperature is 1 / weights[0][0].
        bias: `(k,)`.
        n: calibration rows.
        nll: method -> cross-validated negative log-likelihood in nats per row (multi-label: mean
            over its known labels).
        note: why a method was not tried, or ``.
    """

    method: str
    link: Literal["softmax", "sigmoid"]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    n: int = 0
    nll: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def temperature(self) -> float | None:
        """The temperature, where there is only that; 1 for the identity."""
        plain = self.link == "softmax" and self.method in ("identity", "temperature")
        return 1 / self.weights[0][0] if plain else None

    def apply(self, scores: Array) -> Array:
        """Return calibrated probabilities `(n, k)` float64.

        Args:
            scores: `(n, k)` log-probabilities, minus infinity allowed (softmax), or logits
                (sigmoid).

        Raises:
            UsageError: another number of columns than it was fitted on, or NaN.
        """
        table = score_table(scores, self.link)
        if table.shape[1] != len(self.bias):
            raise UsageError(
                f"the calibrator was fitted on {len(self.bias)} columns, got {table.shape[1]}"
            )
        mapped = table @ np.array(self.weights).T + np.array(self.bias)
        return np.exp(_log_softmax(mapped)) if self.link == "softmax" else sigmoid(mapped)

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return the calibrator that `to_json` wrote."""
        weights = tuple(tuple(float(w) for w in row) for row in held["weights"])
        return cls(**{**held, "weights": weights, "bias": tuple(held["bias"])})


def fit_calibrator(
    log_probabilities: Array,
    truth: Sequence[int] | Array,
    *,
    method: str = "auto",
    patients: Sequence[Any] | Array | None = None,
) -> Calibrator:
    """Fit on calibration rows that serve nothing else.

    Args:
        log_probabilities: `(n, classes)`.
        truth: `(n,)` class indices.
        method: one of `METHODS`, or `auto`: the one with the lowest cross-validated negative
            log-likelihood; more than a temperature only with enough rows of every class, and only
            where the gain exceeds twice its standard error.
        patients: `(n,)`; rows of one patient stay in one fold. None: every row is one of its own.

    Raises:
        UsageError: an unknown method, wrong shapes, classes out of range, no row.
    """
    if method not in ("auto", *METHODS):
        raise UsageError(f"method must be one of auto, {', '.join(METHODS)}, got '{method}'")
    table = score_table(log_probabilities, "softmax")
    truth = _class_indices(truth, table)
    n, k = table.shape

    def losses(name: str, fit: Array, held: Array) -> Array:
        weights, bias = _fit_classes(name, table[fit], truth[fit])
        found = _log_softmax(table[held] @ weights.T + bias)
        return np.asarray(-found[np.arange(len(held)), truth[held]])

    nll: Mapping[str, float] = {}
    note = ""
    if method == "auto":
        tried, note = _worth_trying(np.bincount(truth, minlength=k))
        method, nll = choose_method(tried, losses, patient_folds(truth, patients))
        note = note if nll else note or ONE_PATIENT
    weights, bias = _fit_classes(method, table, truth)
    rows = tuple(map(tuple, weights.tolist()))
    return Calibrator(method, "softmax", rows, tuple(bias.tolist()), n, nll, note)


def _worth_trying(count: Array) -> tuple[list[str], str]:
    """Return the methods that `(classes,)` rows suffice for, and why others are left out."""
    if (count > 0).sum() < 2:
        return ["identity"], "rows of one class only: probabilities are left as they are"
    short = [name for name, rows in ROWS.items() if count.min() < rows]
    why = [f"{name} needs {ROWS[name]} rows of each class" for name in short]
    note = "; ".join([*why, f"the rarest has {count.min()}"]) if why else ""
    return [name for name in METHODS if name not in short], note


def _fit_classes(method: str, table: Array, truth: Array) -> tuple[Array, Array]:
    """Return weights `(k, k)` and bias `(k,)` of a softmax calibration."""
    k = table.shape[1]
    if method == "identity":
        return np.eye(k), np.zeros(k)
    start = _inverse_temperature(table, truth)
    if method == "temperature":
        return start * np.eye(k), np.zeros(k)
    spread = np.full((k, k), _SD_CROSS if method == "dirichlet" else 0.0)
    np.fill_diagonal(spread, _SD_SLOPE)
    hot = np.eye(k)[truth]

    def mapping(flat: Array) -> tuple[Array, Array]:  # `flat` is standard normal a priori
        slope, bias, tilt = np.exp(_SD_LOG_TEMPERATURE * flat[0]), flat[1 : k + 1], flat[k + 1 :]
        return slope * (np.eye(k) + spread * tilt.reshape(k, k)), _SD_BIAS * bias

    def objective(flat: Array) -> tuple[float, Array]:
        weights, bias = mapping(flat)
        logs = _log_softmax(table @ weights.T + bias)
        rest = np.exp(logs) - hot
        by_weight = rest.T @ table
        by_slope = [(by_weight * weights).sum() * _SD_LOG_TEMPERATURE]
        by_tilt = np.exp(_SD_LOG_TEMPERATURE * flat[0]) * by_weight * spread
        gradient = np.concatenate([by_slope, _SD_BIAS * rest.sum(0), by_tilt.ravel()])
        return float(0.5 * flat @ flat - (hot * logs).sum()), gradient + flat

    first = np.zeros(1 + k + k * k)
    first[0] = np.log(start) / _SD_LOG_TEMPERATURE
    return mapping(find_mode(objective, first))


def _inverse_temperature(table: Array, truth: Array) -> float:
    """Return 1 / T at the mode of likelihood times prior: a grid, then a search between points."""
    from scipy.optimize import minimize_scalar

    def objective(log_t: float) -> float:
        logs = _log_softmax(table * np.exp(-log_t))
        fit = logs[np.arange(len(truth)), truth].sum()
        return float(0.5 * (log_t / _SD_LOG_TEMPERATURE) ** 2 - fit)

    low, high = np.log(COLDEST), np.log(HOTTEST)
    grid = np.linspace(low, high, 49)
    best = grid[int(np.argmin([objective(point) for point in grid]))]
    near = (max(low, best - 0.13), min(high, best + 0.13))
    return float(np.exp(-minimize_scalar(objective, bounds=near, method="bounded").x))


def find_mode(
    objective: Callable[[Array], tuple[float, Array]],
    start: Array,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
) -> Array:
    """Return the minimum of a function that gives its value and gradient, searched from `start`."""
    from scipy.optimize import minimize

    return np.asarray(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def score_table(scores: Array, link: str) -> Array:
    """Return finite `(n, k)` float64: log-probabilities from `FLOOR` up, logits within its size."""
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[1] < (2 if link == "softmax" else 1):
        raise UsageError(
            f"scores must be (n, k) with k of 2 or more (labels: 1 or more), got {table.shape}"
        )
    if not np.isfinite(table.max(axis=1)).all():
        raise UsageError("scores must not hold NaN or infinity; leave failed rows out")
    if link == "sigmoid":
        return np.clip(table, FLOOR, -FLOOR)
    return np.maximum(_log_softmax(table), FLOOR)


def _class_indices(truth: Sequence[int] | Array, table: Array) -> Array:
    """Return `truth` as integers, checked against the table."""
    found = np.asarray(truth)
    n, k = table.shape
    if not n:
        raise UsageError("a calibrator needs at least one row, got none")
    if found.shape != (n,) or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= k:
        raise UsageError(f"truth must be {n} class indices of 0 to {k - 1}, got {found[:5]}…")
    return found.astype(np.int64)


def _log_softmax(table: Array) -> Array:
    shifted = table - table.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def sigmoid(logits: Array) -> Array:
    """Return 1 / (1 + exp(-logits)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
