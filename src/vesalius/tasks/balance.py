# SPDX-License-Identifier: Apache-2.0
"""Balance: how many cases each answer of a target has, how uneven that is, what evens it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.tasks.targets import Target
from vesalius.types import Json


def case_counts(target: Target, truths: Sequence[str]) -> Json:
    """Return the cases of each class, in order: `{class: n}`.

    Of a multi-label target `{label: {"absent": n, "present": n, "unknown": n}}`; of a regression
    `{}`.
    """
    if target.kind == "regression":
        return {}
    codes = target.encode(truths)
    if target.kind != "multilabel":
        found = np.bincount(codes, minlength=len(target.classes))
        return dict(zip(target.classes, found.tolist(), strict=True))
    states = {"absent": codes == 0, "present": codes == 1, "unknown": np.isnan(codes)}
    return {
        label: {state: int(held[:, place].sum()) for state, held in states.items()}
        for place, label in enumerate(target.classes)
    }


def balancing(target: Target, truths: Sequence[str], *, power: float = 0.5) -> list[Any] | None:
    """Return the weights for `Target.loss` that balance the training truths, as lists.

    Classes and grades: `(classes,)`; a multi-label target: `(labels, 2)`, of absent and of
    present; a regression: None. See `training.loss.class_weights` and `label_weights`.
    """
    from vesalius.training.loss import class_weights, label_weights

    if target.kind == "regression":
        return None
    counts = case_counts(target, truths)
    if target.kind == "multilabel":
        pairs = [(held["absent"], held["present"]) for held in counts.values()]
        return [list(pair) for pair in label_weights(pairs, power=power)]
    return class_weights(list(counts.values()), power=power)


def balance(target: Target, truths: Sequence[str], *, power: float = 0.5) -> Json:
    """Return how uneven the truths are, for the audit: that of `training.loss.imbalance`.

    Of a multi-label target `labels`, one such record per label with the cases that it is unknown
    of, and `labels_per_case`; of a regression `cases` and `quartiles`, from the least to the
    greatest number.
    """
    from vesalius.training.loss import imbalance

    if target.kind == "regression":
        values = [target.number(text) for text in truths]
        parts = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist() if values else []
        return {"cases": len(values), "quartiles": parts}
    counts = case_counts(target, truths)
    if target.kind != "multilabel":
        return imbalance(counts, power=power)
    labels = {}
    for (label, held), pair in zip(
        counts.items(), balancing(target, truths, power=power) or (), strict=True
    ):
        known = {state: held[state] for state in ("absent", "present")}
        weights = {state: round(w, 6) for state, w in zip(known, pair, strict=True)}
        labels[label] = imbalance(known) | {"weights": weights, "unknown": held["unknown"]}
    present = sum(held["present"] for held in counts.values())
    return {"labels": labels, "labels_per_case": round(present / max(1, len(truths)), 6)}
