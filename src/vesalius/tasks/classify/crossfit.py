# SPDX-License-Identifier: Apache-2.0
"""Cross-fitting of heads: answers for every row from heads that never saw its group.

Van der Laan, Polley, Hubbard: Super Learner, 2007: members are weighed by their answers on held-out
folds, then fitted again on all rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.heads import Embedded, KnnHead, fit_head, new_head
from vesalius.tasks.classify.method_choice import FOLDS, patient_folds
from vesalius.tasks.targets import Target
from vesalius.types import Array, Json

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
NEIGHBORS = (5, 11, 25)
_FEW = 64  # cases that tell how long a head takes


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head fitted on all rows, and what it says of each row when it was held out."""

    spec: Json  # with the chosen strength
    head: nn.Module
    held_out: Array  # (n, ...), as `Target.probabilities`
    loss: float  # mean of `held_out`


def crossfit(
    spec: Json,
    cases: Embedded,
    truths: Sequence[str],
    groups: Sequence[Any],
    target: Target,
    *,
    facts: Sequence[int],
    weights: Tensor | None,
    seed: int,
) -> Fitted:
    """Fit one head, its strength (penalty, neighbors) chosen by the held-out loss.

    Args:
        spec: of the plan: `head`, `pooling`, `dropout`.
        cases: all cases that may be fitted on.
        truths: of the cases.
        groups: of the cases; a group lies in one fold.
        target: of the truths.
        facts: see `heads.new_head`.
        weights: of the classes.
        seed: of small networks.
    """
    codes = target.encode(truths)
    fold = patient_folds(_strata(codes, target), groups)
    features = cases.items.shape[1]
    best: tuple[float, Json, Array] | None = None
    worse = 0
    for tried in _variants(spec):
        table = np.zeros((len(truths), max(1, len(target.classes))))
        for number in np.unique(fold):
            inner, outer = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            head = fit_head(
                new_head(tried, features, facts, target),
                tried,
                cases.take(inner),
                [truths[int(i)] for i in inner],
                target,
                weights,
                seed,
            )
            table[outer] = answers(head, cases.take(outer), target)
        loss = float(losses(table, codes, target).mean())
        if best is None or loss < best[0]:
            best, worse = (loss, tried, table), 0
        else:
            worse += 1
            if worse == 2:  # the loss has one minimum along the strengths
                break
    assert best is not None  # noqa: S101 - tells the type checker: there is a variant at least
    loss, chosen, table = best
    head = fit_head(
        new_head(chosen, features, facts, target), chosen, cases, truths, target, weights, seed
    )
    return Fitted(chosen, head, table, loss)


def seconds_to_crossfit(
    spec: Json,
    cases: Embedded,
    truths: Sequence[str],
    target: Target,
    *,
    facts: Sequence[int],
    weights: Tensor | None,
) -> float:
    """Return how long `crossfit` takes, about, from one fit on a few of the cases.

    The few are spread evenly; each strength is counted, though the search may end before.
    """
    count = len(truths)
    few = np.unique(np.linspace(0, count - 1, max(_FEW, count // 8)).astype(int))
    variants = _variants(spec)

    def fit(some: Array) -> None:
        fresh = new_head(variants[0], cases.items.shape[1], facts, target)
        told = [truths[int(place)] for place in some]
        fit_head(fresh, variants[0], cases.take(some), told, target, weights, 0)

    fit(few[:8])  # the first call is slower
    begun = time.perf_counter()
    fit(few)
    once = (time.perf_counter() - begun) * count / len(few)
    return once * ((FOLDS - 1) * len(variants) + 1)  # a fold is fitted on the others


def answers(head: nn.Module, cases: Embedded, target: Target) -> Array:
    """Return what a head says of cases, in the form of `Target.probabilities`."""
    with torch.inference_mode():
        found = head(cases).double().numpy()
    return np.asarray(found) if isinstance(head, KnnHead) else target.probabilities(found)


def _variants(spec: Json) -> list[Json]:
    if spec["head"] == "logistic":
        return [{**spec, "penalty": p} for p in reversed(PENALTIES)]
    if spec["head"] == "knn":
        return [{**spec, "k": k} for k in NEIGHBORS]
    return [spec]


def _strata(codes: Array, target: Target) -> Array:
    """Return what each fold is to have its part of: class, number of labels, quintile."""
    if target.kind == "multilabel":
        return np.asarray(np.nansum(codes, axis=1))
    if target.kind == "regression":
        return np.digitize(codes, np.quantile(codes, [0.2, 0.4, 0.6, 0.8]))
    return codes
