# SPDX-License-Identifier: Apache-2.0
"""Answers become `predictions.parquet` and scores: what evaluation and training write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius.cohorts.schema import LABEL
from vesalius.metrics import (
    classification_summary,
    multilabel_summary,
    ordinal_summary,
    regression_summary,
)
from vesalius.tasks.cases import Case, case_groups
from vesalius.tasks.classify.conformal import expected_coverage
from vesalius.tasks.classify.ensemble import losses
from vesalius.tasks.classify.predict import Answer, Classifier
from vesalius.tasks.classify.thresholds import binomial_interval
from vesalius.tasks.classify.trust import COVERAGE
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

GROUPS = ("modality", "scanner", "site", "sex", "age")
_DECADES = 20  # years of age that are scored together


def score_cases(
    run: Run,
    classifier: Classifier,
    cohort: Cohort,
    cases: Sequence[Case],
    split: str,
    *,
    progress: Progress | None = None,
) -> Json:
    """Predict one subset, write `predictions.parquet` and `metrics.json`, return the metrics.

    A case without any readable image counts as a failure.
    """
    answers: list[Answer] = []
    for answer in classifier.answer(cohort, cases):
        answers.append(answer)
        if progress is not None:
            progress(f"scoring {split}", len(answers), len(cases))
    return write_scores(run, cases, answers, split, case_groups(cohort, cases))


def write_scores(
    run: Run,
    cases: Sequence[Case],
    answers: Sequence[Answer],
    split: str,
    groups: Mapping[str, int],
) -> Json:
    """Write predictions and metrics of one subset from its answers.

    Args:
        run: that answered.
        cases: of the subset.
        answers: to each of them.
        split: name of the subset.
        groups: case key -> group, of `cases.case_groups`: intervals come from draws of groups,
            which hold whole patients and, where no file names a patient, images that look alike.
    """
    target = Target.from_json(run.decisions["target"])
    trivial = np.full(max(1, len(target.classes)), 1 / max(1, len(target.classes)))
    failed = np.array([answer.probabilities is None for answer in answers])
    table = np.stack([trivial if a.probabilities is None else a.probabilities for a in answers])
    truths = [case.truth for case in cases]
    rows = prediction_rows(cases, answers, table, target, split, groups)
    run.write_predictions(split, rows)
    summary = _summary(run, target, cases, table, rows, failed)
    held = [answer.label_set for answer in answers]
    promise = run.plan["measured"].get("label_sets")
    if any(held) and promise:
        summary["label_sets"] = _set_report(held, truths, promise)
    called = [answer.called for answer in answers]
    if any(called):
        summary["operating_point"] = _operating(called, truths, target)
    refused = [bool(answer.abstained) for answer in answers]
    summary["n_abstained"] = int(sum(refused))
    return run.write_metrics(split, summary)


def _summary(
    run: Run,
    target: Target,
    cases: Sequence[Case],
    table: Array,
    rows: Sequence[Json],
    failed: Array,
) -> Json:
    """Return the scores that belong to the kind of target."""
    truths, patients = [case.truth for case in cases], [row["group"] for row in rows]
    common: Json = {
        "failed": failed,
        "groups": {name: [str(row[name]) for row in rows] for name in GROUPS},
    }
    if target.kind == "regression":
        low, high = (np.array([row[side] for row in rows], float) for side in ("low", "high"))
        bounded = bool(np.isfinite(low)[~failed].all())
        return regression_summary(
            [target.number(text) for text in truths],
            table[:, 0],
            patients,
            low=low if bounded else None,
            high=high if bounded else None,
            coverage=COVERAGE,
            constant=target.unit_mean,
            **common,
        )
    summarize = {"multilabel": multilabel_summary, "ordinal": ordinal_summary}.get(
        target.kind, classification_summary
    )
    return summarize(
        target.encode(truths),
        table,
        list(target.classes),
        patients,
        frequencies=_frequencies(run, target),
        **common,
    )


def prediction_rows(
    cases: Sequence[Case],
    answers: Sequence[Answer],
    table: Array,
    target: Target,
    split: str,
    groups: Mapping[str, int],
) -> list[Json]:
    """Return one row per case."""
    codes = target.encode([case.truth for case in cases])
    loss = losses(table, codes, target)
    predicted = target.predicted(table)
    names = [f"p_{name}" for name in target.classes] or ["value"]
    named: dict[int, str] = {}  # a group bears the name of its first patient
    rows = []
    for place, (case, answer) in enumerate(zip(cases, answers, strict=True)):
        lost = answer.probabilities is None
        row: Json = {
            "key": case.key,
            "patient": case.patient,
            "group": named.setdefault(groups[case.key], case.patient),
            "split": split,
            "truth": case.truth,
            "predicted": None if lost else predicted[place],
            **{n: None if lost else float(v) for n, v in zip(names, table[place], strict=True)},
            "loss": None if lost else float(loss[place]),
            "failed": lost,
            "reason": answer.reason,
            "label_set": "; ".join(answer.label_set),
            "outlier": answer.outlier,
            "abstained": answer.abstained,
            "called": answer.called,
            "modality": case.value("modality"),
            "scanner": case.value("scanner"),
            "site": case.value("site"),
            "sex": case.value(f"{LABEL}sex"),
            "age": _ages(case.value(f"{LABEL}age")),
            "images": len(case.rows),
        }
        if target.kind == "regression":
            low, high = answer.interval or (-np.inf, np.inf)
            finite = bool(np.isfinite(low) and np.isfinite(high))
            row |= {"low": low if finite else None, "high": high if finite else None}
        rows.append(row)
    return rows


def _ages(text: str) -> str:
    """Return the span of years that an age lies in, `` where it is none."""
    try:
        start = int(float(text)) // _DECADES * _DECADES
    except ValueError:
        return ""  # unknown, or several in one case
    return f"{start:02} to {start + _DECADES - 1}"


def _frequencies(run: Run, target: Target) -> list[float]:
    """Return how often each class, or each label where it is known, occurs in training."""
    train = run.plan["fingerprint"]["cases_per_class"]
    if target.kind == "multilabel":
        held = [train[name] for name in target.classes]
        return [h["present"] / max(1, h["present"] + h["absent"]) for h in held]
    return [train.get(name, 0) / sum(train.values()) for name in target.classes]


def _operating(called: Sequence[str], truths: Sequence[str], target: Target) -> Json:
    """Return what the run's threshold does here; no call (failed, abstained) is a wrong one."""
    negative, positive = target.classes
    held: Json = {}
    for name, of in (("sensitivity", positive), ("specificity", negative)):
        right = [c == of for c, truth in zip(called, truths, strict=True) if truth == of]
        low, high = binomial_interval(sum(right), len(right)) if right else (0.0, 1.0)
        value = sum(right) / len(right) if right else None
        held[name] = {"value": value, "low": low, "high": high, "n": len(right)}
    return held


def _set_report(sets: Sequence[Sequence[str]], truths: Sequence[str], promise: Json) -> Json:
    """Return how the promise was kept; a failed case has no set, which does not hold its truth."""
    held = [truth in one for one, truth in zip(sets, truths, strict=True)]
    low, high = binomial_interval(sum(held), len(held))
    expected = expected_coverage(promise["coverage"], promise["n"], len(held))
    sizes = [len(one) for one in sets]
    return {
        "n": len(held),
        "promised": promise["coverage"],
        "coverage": float(np.mean(held)),
        "low": low,
        "high": high,
        "expected": list(expected),
        "mean_size": float(np.mean(sizes)),
        "sizes": np.bincount(sizes).tolist(),
    }
