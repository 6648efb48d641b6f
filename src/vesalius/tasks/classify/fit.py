# SPDX-License-Identifier: Apache-2.0
"""Training a classifier: frozen features and their heads, networks, the mixture, its trust.

1. The views of all images are written to the run's cache.
2. Frozen, pretrained encoders embed them; heads are cross-fitted on training and validation cases.
3. The plan's networks are trained on training cases, the best state by validation kept. What of
   2 and 3 does not fit into the minutes is left out, and the audit says so.
4. The heads' mixture is selected on what they said of training and validation cases when these
   were held out; then that mixture and the networks are weighed on validation cases.
5. Calibration, label sets and the refusal of outliers are fitted on calibration cases, which
   served none of the above.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vesalius.errors import BudgetError, CohortError, DataError
from vesalius.files import write_json
from vesalius.tasks.cases import Case, Cases, case_groups
from vesalius.tasks.classify.candidates import (
    REFERENCES,
    Rows,
    embed,
    embeddings_path,
    fit_heads,
    fit_networks,
)
from vesalius.tasks.classify.clock import Clock
from vesalius.tasks.classify.ensemble import losses, mix, select
from vesalius.tasks.classify.members import HeadMember, Member, save_members
from vesalius.tasks.classify.outliers import OutlierScore
from vesalius.tasks.classify.predict import (
    TRUST,
    TRUST_ARRAYS,
    Answer,
    Classifier,
    Mixture,
    means,
)
from vesalius.tasks.classify.scoring import write_scores
from vesalius.tasks.classify.store import prepare
from vesalius.tasks.classify.thresholds import choose_threshold
from vesalius.tasks.classify.trust import Trust, fit_trust
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.normalizing import fitted_normalizer
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.training import checkpoint
from vesalius.types import Array, Json, PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort


def train_run(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    *,
    started: float,
    progress: Progress | None = None,
    start: PathLike | None = None,
) -> Run:
    """Train until the plan's budget is used, or go on after an interruption; return the run.

    Args:
        run: with its plan and split written.
        cohort: of the plan.
        cases: of the cohort.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.
        start: a finished run whose network's weights to begin with.
    """
    subsets, decisions = run.subsets(), run.decisions
    parts = {name: cases.subset(subsets, name) for name in ("train", "val", "calibration")}
    if not parts["val"]:
        raise CohortError("the split has no validation cases; give a --split file that has")
    measured = run.plan["measured"]
    clock = Clock.of(decisions["budget"], started, measured.get("left_out", {}))
    normalizer = fitted_normalizer(run, cohort, parts["train"])
    everything = [case for part in parts.values() for case in part]
    store = prepare(run.path / "cache", cohort, everything, decisions, normalizer, clock, progress)
    target = Target.from_json(decisions["target"])
    groups = case_groups(cohort, everything)
    rows = Rows(store, target, groups, *(store.served(part) for part in parts.values()))
    if not rows.val or not rows.train:
        raise CohortError("no image of training or of validation can be used: see `vesalius check`")
    encoders = [FrozenEncoder(spec, run.path) for spec in decisions["frozen"]]
    heads, said = fit_heads(run, rows, encoders, clock, progress)
    if heads:
        run = run.measure(left_out=clock.left_out)
    run, networks, held = fit_networks(run, rows, clock, progress, start)
    members: list[Member] = [*heads, *networks]
    if not members:
        raise BudgetError(
            f"nothing can be trained: {'; '.join(clock.lines())}; give more --minutes"
        )
    run = run.note(*clock.lines()).measure(left_out=clock.left_out)
    weights, held = _weigh(rows, said, held)
    raw = mix(held, weights)
    run, mixture = _keep(run, members, held, weights, encoders, rows)
    trust = _operating(_trust(run, mixture, rows), decisions["operating"], raw, rows)
    write_json(run.path / TRUST, trust.to_json())
    if trust.outliers is not None:
        arrays = {n: torch.from_numpy(a) for n, a in trust.outliers.arrays().items()}
        checkpoint.save_tensors(run.path / TRUST_ARRAYS, arrays, {"plan": run.id})
    if trust.sets is not None:
        run = run.measure(label_sets={"coverage": trust.sets.coverage, "n": trust.sets.n})
    classifier = Classifier(mixture, decisions, normalizer, trust)
    embeddings = _embeddings(run, rows, mixture, rows.val)
    answers = classifier.trusted(raw, embeddings, [store.lost(case) for case in rows.val])
    read = {case.key for case in rows.val}
    unread = [case for case in parts["val"] if case.key not in read]
    failures = [Answer(None, store.lost(case)) for case in unread]
    write_scores(run, [*rows.val, *unread], [*answers, *failures], "val", groups)
    (run.path / "cache" / "views.json").unlink(missing_ok=True)  # first: no index without views
    shutil.rmtree(run.path / "cache", ignore_errors=True)
    lost = [f"image {key} could not be prepared: {why}" for key, why in store.failures.items()]
    return run.note(*trust.notes, *lost).measure(finished=True)


def _weigh(
    rows: Rows, heads: Sequence[Array], networks: Sequence[Array]
) -> tuple[Array, list[Array]]:
    """Return each member's weight, heads first, and its answers to the validation cases."""
    own = np.zeros(0)
    on_val = [table[len(rows.train) :] for table in heads]
    parts: list[Array] = list(networks)
    if heads:
        own = _select(rows, heads, rows.pool)
        parts = [mix(on_val, own), *networks]
    shares = _select(rows, parts, rows.val)
    weights = np.concatenate([own * shares[0], shares[1:]]) if heads else shares
    return weights, [*on_val, *networks]


def _select(rows: Rows, tables: Sequence[Array], cases: Sequence[Case]) -> Array:
    truths, groups = [c.truth for c in cases], [rows.groups[c.key] for c in cases]
    return select(tables, truths, groups, rows.target)


def _keep(
    run: Run,
    members: Sequence[Member],
    held: Sequence[Array],
    weights: Array,
    encoders: Sequence[FrozenEncoder],
    rows: Rows,
) -> tuple[Run, Mixture]:
    """Save the members that weigh anything, and return their mixture."""
    codes = rows.target.encode([case.truth for case in rows.val])
    tried = [
        {
            **member.to_json(),
            "weight": round(float(weight), 6),
            "loss": round(float(losses(table, codes, rows.target).mean()), 5),
        }
        for member, table, weight in zip(members, held, weights, strict=True)
    ]
    kept = [place for place, weight in enumerate(weights) if weight > 0]
    chosen = [members[place] for place in kept]
    used = sorted({m.encoder for m in chosen if isinstance(m, HeadMember)})
    serving = {number: encoders[number] for number in used}
    save_members(run.path / "model.safetensors", chosen, serving, run.id)
    run = run.measure(
        members=[tried[place] for place in kept],
        candidates={t["name"]: {"loss": t["loss"], "weight": t["weight"]} for t in tried},
    )
    return run, Mixture(chosen, serving, weights[kept])


def _trust(run: Run, mixture: Mixture, rows: Rows) -> Trust:
    """Fit calibration, label sets and the refusal of outliers."""
    cases = rows.calibration
    truths, patients = [c.truth for c in cases], [rows.groups[c.key] for c in cases]
    if not cases:
        return fit_trust(np.empty((0, 0)), truths, patients, rows.target, None, None)
    raw, embeddings = mixture.answer([rows.store.images(case) for case in cases])
    inside = _embeddings(run, rows, mixture, rows.train[:REFERENCES])
    labels = None
    if rows.target.kind in ("binary", "multiclass", "ordinal"):
        labels = rows.target.encode([case.truth for case in rows.train[:REFERENCES]])
    outliers = OutlierScore.fit(inside, labels)
    return fit_trust(raw, truths, patients, rows.target, outliers, embeddings)


def _embeddings(run: Run, rows: Rows, mixture: Mixture, cases: Sequence[Case]) -> Array:
    """Return what `Mixture.embeddings` does, from the cache where a frozen encoder gives them."""
    if not mixture.encoders:
        return mixture.embeddings([rows.store.images(case) for case in cases])
    number = min(mixture.encoders)
    path = embeddings_path(run, number)
    return means(embed(path, rows, mixture.encoders[number], cases, None))


def _operating(trust: Trust, asked: Json, raw: Array, rows: Rows) -> Trust:
    """Choose the threshold that was asked for, on validation cases."""
    if not asked:
        return trust
    positive = rows.target.encode([case.truth for case in rows.val]) == 1
    try:
        point = choose_threshold(trust.calibrate(raw, rows.target)[:, 1], positive, **asked)
    except DataError as error:  # too few cases to show it: the audit says so
        return replace(trust, notes=(*trust.notes, f"no operating point: {error}"))
    line = (
        f"threshold for {point.asked}: {point.threshold:.4f}, chosen on validation cases, which "
        "also chose the mixture: read its rates on the test subset"
    )
    notes = (*trust.notes, line, point.note)
    return replace(trust, operating=point, notes=tuple(note for note in notes if note))
