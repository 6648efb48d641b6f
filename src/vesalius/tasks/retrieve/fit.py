# SPDX-License-Identifier: Apache-2.0
"""Training a retrieval run.

1. Every image is read once: frozen features, and views for a twin.
2. Towers learn from the training images; validation images judge them.
3. A twin, where the plan has one and the minutes allow it, learns end to end; validation images
   say how much it weighs beside the towers.
4. Scores of validation are those of 2 and 3. Then the towers that the run keeps learn from
   training and validation images, each from its own random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import BudgetError, CohortError
from vesalius.networks.efficientnet_lite import FEATURES
from vesalius.tasks.cases import Case, Cases, case_groups
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.normalizing import fitted_normalizer
from vesalius.tasks.retrieve.baselines import small_pixels
from vesalius.tasks.retrieve.judge import unit
from vesalius.tasks.retrieve.learning import image_scores
from vesalius.tasks.retrieve.lesson import (
    Heads,
    Lesson,
    fit_ridges,
    make_heads,
    make_lesson,
    vectors_of,
)
from vesalius.tasks.retrieve.prepared import prepare
from vesalius.tasks.retrieve.saved import assemble, save_parts, words_beside
from vesalius.tasks.retrieve.scoring import Images, padded, write_scores
from vesalius.tasks.retrieve.tower_fit import (
    judge_on,
    new_towers,
    step_loss_of,
    train_towers,
)
from vesalius.tasks.retrieve.towers import WordsTowers
from vesalius.tasks.retrieve.twin import Twin, measure_twin, train_twin, twin_vectors
from vesalius.tasks.run import Run
from vesalius.training import budget, device
from vesalius.types import Array, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)  # of the twin that are tried
_TOWERS_TIME = 0.5  # of the minutes left goes to towers at most


def train_run(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    *,
    started: float,
    progress: Progress | None = None,
) -> Run:
    """Train until the plan's budget is used, or go on after an interruption; return the run.

    Args:
        run: with its plan and split written.
        cohort: of the plan.
        cases: of the cohort.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.
    """
    decisions, seed = run.decisions, int(run.plan["seed"])
    subsets = run.subsets()
    train, val = cases.subset(subsets, "train"), cases.subset(subsets, "val")
    if not val:
        raise CohortError("the split has no validation images; give a --split file that has")
    normalizer = fitted_normalizer(run, cohort, train)
    frozen = FrozenEncoder(decisions["frozen"], run.path)
    folder = run.path / "cache"
    prepared = prepare(folder, cohort, [*train, *val], decisions, normalizer, frozen, progress)
    groups = case_groups(cohort, [*train, *val])
    lesson = make_lesson(prepared, groups, {case.key for case in train}, decisions)
    fabric = device.start("32-true")
    run = _measure_towers(run, lesson, started)
    tower_steps = run.plan["measured"]["towers"]
    towers = train_towers(
        lesson.material.some(lesson.train),
        decisions,
        tower_steps,
        seed=seed,
        folder=run.path / "networks" / "towers",
        fabric=fabric,
        judge=judge_on(lesson.material, lesson.val),
        progress=progress,
    )
    ridges = fit_ridges(lesson, lesson.train, decisions)
    chosen = make_heads(ridges, [towers], decisions)
    vectors = vectors_of(chosen, lesson)
    run, twin = _twin(run, lesson, started, progress)
    run, seen = _weigh(run, lesson, vectors, twin)
    share = float(run.plan["measured"]["twin_share"])
    kept = [
        train_towers(
            lesson.material,
            decisions,
            tower_steps,
            seed=seed + 1 + number,
            folder=run.path / "networks" / f"tower-{number}",
            fabric=fabric,
            progress=progress,
        )
        for number in range(decisions["tower"]["count"])
    ]
    ridges = fit_ridges(lesson, np.arange(len(prepared.cases)), decisions)
    run = run.measure(ridge_blocks=ridges.blocks)
    _save(run, lesson, make_heads(ridges, kept, decisions), frozen, twin, share)
    write_scores(run, _validated(lesson, chosen, seen, groups, val), "val")
    shutil.rmtree(folder, ignore_errors=True)
    for state in (run.path / "networks").glob("*/checkpoint"):  # the logs stay
        shutil.rmtree(state)
    lost = [f"image {key} could not be prepared: {why}" for key, why in prepared.failures.items()]
    return run.note(
        "scores of 'val' are those of towers that learned from training images alone; the towers "
        "that the run keeps learned from validation images, too",
        *lost,
    ).measure(finished=True)


def _measure_towers(run: Run, lesson: Lesson, started: float) -> Run:
    """Write the steps of each tower into the plan: as many as it states, fewer where time lacks."""
    if "towers" in run.plan["measured"]:
        return run
    decisions = run.decisions
    most = int(decisions["tower"]["steps"])
    asked = decisions["budget"]
    if "steps" in asked:
        return run.measure(towers={"steps": min(most, int(asked["steps"]))})
    material = lesson.material.some(lesson.train)
    fabric = device.start("32-true")
    towers = new_towers(material, decisions, 0)
    share = budget.share(asked, started, (1 + decisions["tower"]["count"]) / _TOWERS_TIME)
    measured = budget.measure_steps(
        share,
        towers,
        step_loss=step_loss_of(material, decisions, 0, fabric),
        validate=judge_on(lesson.material, lesson.val),
        fabric=fabric,
        started=started,
        finals=1.0,
        most=most,
    )
    measured.pop("stop_after", None)  # towers are short: their steps are kept to
    return run.measure(towers=measured)


def _twin(
    run: Run, lesson: Lesson, started: float, progress: Progress | None
) -> tuple[Run, Twin | None]:
    """Train the plan's twin, where it has one and the minutes allow it."""
    decisions, seed = run.decisions, int(run.plan["seed"])
    if not decisions["networks"]:
        return run, None
    (spec,) = decisions["networks"]
    fabric = device.start(decisions["precision"])
    given = (spec, lesson.prepared, lesson.material.pairs, (lesson.train, lesson.val), decisions)
    if "twin" not in run.plan["measured"]:
        try:
            measured = measure_twin(*given, seed=seed, fabric=fabric, started=started)
        except BudgetError as error:
            measured = {"left_out": str(error)}
            run = run.note(f"{spec['name']} is left out for time: {error}")
        run = run.measure(twin=measured)
    measured = run.plan["measured"]["twin"]
    if "left_out" in measured:
        return run, None
    twin, _ = train_twin(
        *given,
        measured,
        seed=seed,
        folder=run.path / "networks" / spec["name"],
        fabric=fabric,
        progress=progress,
    )
    return run, twin.cpu()


def _weigh(run: Run, lesson: Lesson, towers: Array, twin: Twin | None) -> tuple[Run, Array]:
    """Choose the twin's share on validation images; return the vectors of the mixture."""
    places = [int(place) for place in range(len(towers))]
    own = None if twin is None else twin_vectors(twin, lesson.prepared, places)
    mixtures = {
        share: towers if own is None else _mixed(towers, own, share)
        for share in (_SHARES if own is not None else (0.0,))
    }
    pairs = lesson.material.pairs
    scores = {
        share: float(np.mean(image_scores(table, lesson.val, pairs) or [0.0]))
        for share, table in mixtures.items()
    }
    best = max(scores, key=lambda share: (round(scores[share], 4), -share))
    tried = {f"{share:g}": round(score, 4) for share, score in scores.items()}
    return run.measure(twin_share=best, twin_shares_tried=tried), mixtures[best]


def _mixed(towers: Array, twin: Array, share: float) -> Array:
    parts = [(1 - share) ** 0.5 * towers, share**0.5 * twin]
    return np.asarray(np.concatenate(parts, axis=1), np.float32)


def _save(
    run: Run, lesson: Lesson, heads: Heads, frozen: FrozenEncoder, twin: Twin | None, share: float
) -> None:
    beside = (twin.encoder, twin.head) if twin is not None and share else None
    image = assemble(frozen, heads.images, heads.shares, beside, share)
    words = None
    if lesson.texts is not None:
        words = words_beside(lesson.texts, heads.words, heads.shares, run.decisions, image)
    save_parts(run, image, words)


def _validated(
    lesson: Lesson,
    heads: Heads,
    vectors: Array,
    groups: Mapping[str, int],
    val: Sequence[Case],
) -> Images:
    """Return validation images as queries, among all that were prepared."""
    prepared = lesson.prepared
    meanings = None
    if lesson.texts is not None:
        rest = vectors.shape[1] - sum(head.dimension for head in heads.words)
        sentences = lesson.material.words.shape[1] > lesson.texts.directions.shape[1]  # type: ignore[union-attr]
        model = WordsTowers(
            lesson.texts, heads.words, heads.shares, sentences=sentences, rest=rest
        ).eval()
        meanings = model.vectors
    lost = [case for case in val if case.key in prepared.failures]
    views = [prepared.image(n).views for n in range(len(prepared.cases))]
    count = len(prepared.cases)
    return Images(
        cases=(*prepared.cases, *lost),
        vectors=padded(unit(vectors), len(lost)),
        queries=np.array([*lesson.val, *range(count, count + len(lost))]),
        groups=groups,
        meanings=meanings,
        others={
            "frozen encoder": padded(unit(prepared.features[:, -FEATURES:]), len(lost)),
            "raw pixels": padded(small_pixels(views), len(lost)),
        },
        failures=prepared.failures,
    )
