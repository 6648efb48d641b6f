# SPDX-License-Identifier: Apache-2.0
"""Class probabilities at the door: their checks, the trivial answer, what a failure answers.

A failed case (no prediction, or one that is not finite) is given the worst answer there is: a
wrong class, held with certainty (of several the one that occurs most often); the last rank for
its own class and the first for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError, did_you_mean
from vesalius.types import Array

SMALLEST = 1e-7  # a probability below this counts as this in a logarithm


def checked(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    failed: Sequence[bool] | Array | None,
) -> tuple[Array, Array, Array]:
    """Return truth as indices `(n,)`, probabilities `(n, classes)` as float64, failures `(n,)`.

    Failed rows hold the worst answer. Raises `UsageError` for wrong shapes, unknown classes or
    no case at all.
    """
    if len(classes) < 2:
        raise UsageError(f"classes must name at least two classes, got {list(classes)}")
    labels = np.asarray(truth)
    if labels.dtype.kind not in "iu":
        known = {str(name): number for number, name in enumerate(classes)}
        for name in labels.tolist():
            if str(name) not in known:
                hint = did_you_mean(str(name), known)
                raise UsageError(f"truth holds '{name}', which is no class of {list(known)}.{hint}")
        labels = np.array([known[str(name)] for name in labels.tolist()], np.int64)
    if not len(labels):
        raise UsageError("truth holds no case: there is nothing to score")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UsageError(f"truth must hold class indices from 0 to {len(classes) - 1}")
    table, lost = checked_table(probabilities, len(labels), len(classes), "classes", failed)
    labels = labels.astype(np.int64)
    table[lost] = np.eye(len(classes))[_most_frequent_wrong(labels, len(classes))[labels[lost]]]
    return labels, table, lost


def checked_table(
    probabilities: Array,
    n: int,
    columns: int,
    what: str,
    failed: Sequence[bool] | Array | None,
) -> tuple[Array, Array]:
    """Return a copy of `probabilities` `(n, columns)` as float64, and the failed rows `(n,)`."""
    table = np.array(probabilities, np.float64)
    if table.shape != (n, columns):
        raise UsageError(
            f"probabilities must have shape ({n}, {columns}) (cases, {what}), got {table.shape}"
        )
    return table, checked_failed(failed, n) | ~np.isfinite(table).all(1)


def checked_failed(failed: Sequence[bool] | Array | None, n: int) -> Array:
    """Return the failed rows as booleans `(n,)`; none of them when None."""
    lost = np.zeros(n, bool) if failed is None else np.array(failed, bool)
    if lost.shape != (n,):
        raise UsageError(f"failed must have {n} entries, got shape {lost.shape}")
    return lost


def class_shares(truth: Array, frequencies: Sequence[float] | Array | None, count: int) -> Array:
    """Return the trivial prediction `(classes,)`: how often each class occurs.

    That of the training labels (`frequencies`), or of `truth` when None.
    """
    given = np.bincount(truth, minlength=count) if frequencies is None else np.asarray(frequencies)
    if given.shape != (count,) or not np.isfinite(given).all() or given.sum() <= 0:
        raise UsageError(f"frequencies must be {count} finite numbers with a sum above 0")
    shares: Array = given / given.sum()
    return shares


def answered(probabilities: Array, failed: Array) -> Array:
    """Return the most probable class of each case `(n,)`, -1 where it failed."""
    return np.where(failed, -1, np.argmax(probabilities, axis=1))


def rank_values(values: Array, positive: Array, failed: Array) -> Array:
    """Return what cases are ranked by `(n,)`: a failed one as wrongly as it can be."""
    return np.where(failed, np.where(positive, -np.inf, np.inf), values)


def _most_frequent_wrong(truth: Array, count: int) -> Array:
    """Return for each class the most frequent one among the others, `(classes,)`."""
    order = np.argsort(-np.bincount(truth, minlength=count), kind="stable")
    wrong: Array = np.where(np.arange(count) == order[0], order[1], order[0])
    return wrong
