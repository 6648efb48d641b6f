# SPDX-License-Identifier: Apache-2.0
"""A segmenter's student: one small network that is taught probabilities, then a run like any other.

1. Images are prepared on the teacher's grid, those without a mask too.
2. The teacher answers as many training images as fit, whole: each answer is moved as its image is.
3. The network learns from patches: the overlap and the divergence of its probabilities from the
   teacher's, and the labels where there are any (`loss`). The best state by validation is kept.
4. `fit.train_run` finds a network that is trained, and does the rest as for every run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import CohortError, DataError
from vesalius.tasks.cases import Case, Cases
from vesalius.tasks.segment.fit import checked_cases, train_run, validation_of
from vesalius.tasks.segment.grid import to_plan
from vesalius.tasks.segment.neighbors import neighbors
from vesalius.tasks.segment.objective import objective
from vesalius.tasks.segment.patches import Prepared, draw, prepare, spots_of
from vesalius.tasks.segment.predict import Segmenter, new_model
from vesalius.tasks.segment.structures import Structures
from vesalius.tasks.segment.student_teacher import ask
from vesalius.training import budget, device, distill
from vesalius.training.augment import Augmentation, augment
from vesalius.training.channels import drop_channels
from vesalius.training.loop import Settings, StepLoss, fit
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.run import Run

SHARE = 0.7  # of the teacher in the loss; the rest is for the labels
ASKING = 0.4  # of the minutes left that asking the teacher may take
_DISK = 0.3  # of what is free, for the teacher's answers


def train_student(
    run: Run,
    cohort: Cohort,
    cases: Cases,
    unlabeled: Sequence[Case],
    teacher: Run,
    *,
    started: float,
    progress: Progress | None = None,
) -> Run:
    """Train until the plan's budget is used, or go on after an interruption; return the run.

    Args:
        run: with its plan, split and normalizer written.
        cohort: of the teacher.
        cases: of the cohort, with masks.
        unlabeled: images that lie in no subset but training, and have no mask.
        teacher: a finished run.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.

    Raises:
        CohortError: no image can be used. BudgetError: the minutes do not suffice.
    """
    decisions, subsets = run.decisions, run.subsets()
    seed = int(run.plan["seed"])
    train, val = cases.subset(subsets, "train"), cases.subset(subsets, "val")
    if not val:
        raise CohortError("the split has no validation images; give a --split file that has")
    checked = checked_cases(val, seed)
    needed = {case.key: case for case in (*train, *checked)}
    cache = run.path / "cache"
    known = prepare(cache, cohort, list(needed.values()), decisions, run.normalizer(), progress)
    masked = [case.key for case in train if case.key in known.keys]
    everything = _with_strangers(known, run, cohort, unlabeled)
    keys = [*masked, *(c.key for c in unlabeled if c.key in everything.keys)]
    order = [keys[place] for place in np.random.default_rng(seed).permutation(len(keys))]
    minutes = decisions["budget"].get("minutes")
    until = time.monotonic()
    if minutes is not None:
        until += ASKING * max(0.0, started + 60 * minutes - until)
    asked = run.plan["measured"].get("taught")  # of a session before
    said = ask(
        everything,
        order[:asked],
        Segmenter.load(teacher).everywhere(),
        late=lambda: asked is None and minutes is not None and time.monotonic() > until,
        most_bytes=np.inf if asked is not None else _DISK * shutil.disk_usage(cache).free,
        progress=progress,
    )
    taught = [key for key in keys if key in said.keys]
    fabric = device.start(decisions["precision"])
    step_loss = _step_loss(decisions, everything, said, taught, set(masked), seed, fabric.device)
    validate = validation_of(decisions, known, [case.key for case in checked], fabric.device)
    if "steps" not in run.plan["measured"]:
        measured = budget.measure_steps(
            decisions["budget"],
            new_model(decisions, 0),
            step_loss=step_loss,
            validate=validate,
            fabric=fabric,
            started=started,
            finals=3 * len(val) / len(checked),  # with reading, resampling, surface distances
            most=max(10, decisions["max_epochs"] * len(taught) // decisions["batch"]),
        )
        told = len(set(masked) & set(taught))
        run = run.note(
            f"taught by the answers to {len(taught)} of {len(keys)} images: {told} with a mask, "
            f"{len(taught) - told} without"
        ).measure(taught=len(taught), **measured)
    fit(
        new_model(decisions, seed),
        step_loss=step_loss,
        validate=validate,
        settings=Settings.from_plan(
            decisions["optimizer"], run.plan["measured"], budget.VALIDATIONS
        ),
        folder=run.path,
        fabric=fabric,
        progress=progress,
    )
    return train_run(run, cohort, cases, started=started, progress=progress)


def loss(
    outputs: Tensor | Sequence[Tensor],
    taught: Tensor,
    codes: Tensor,
    masked: Tensor,
    structures: Structures,
    *,
    share: float,
) -> Tensor:
    """Return what a student lost on a batch of patches: against its teacher, and the labels.

    Args:
        outputs: logits `(N, answers, ...)`, or those of several levels, finest first, of which the
            teacher judges the finest.
        taught: the teacher's probabilities of the structures alone, `(N, structures, ...)`.
        codes: `(N, ...)` of the labels, see `structures`.
        masked: Boolean `(N,)`, of patches whose labels are known.
        structures: of the plan.
        share: of the teacher; the labels have the rest, times the share of patches that have some.
    """
    levels = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    logits = levels[0].float()
    if structures.regions:
        apart = distill.taught_labels(logits, taught, temperature=1.0)
        found = torch.sigmoid(logits)
    else:
        rest = (1 - taught.sum(1, keepdim=True)).clamp(min=0)
        apart = distill.taught_classes(logits, torch.cat([rest, taught], 1), temperature=1.0)
        found = torch.softmax(logits, 1)[:, 1:]
    against = apart + distill.taught_overlap(found, taught)
    if not bool(masked.any()):
        return share * against
    own = objective([level[masked] for level in levels], codes[masked], structures)
    return share * against + (1 - share) * masked.float().mean() * own


def _with_strangers(
    known: Prepared, run: Run, cohort: Cohort, unlabeled: Sequence[Case]
) -> Prepared:
    """Return the prepared images with those that have no mask, whose labels are all background."""
    structures = Structures.of(run.decisions)
    normalizer = run.normalizer()
    keys, failures = set(known.keys), dict(known.failures)
    for case in unlabeled:
        path = known.folder / f"{case.key}.image.npy"
        if not path.exists():
            try:
                volume = cohort.read(case.rows[0])
                if volume.is_2d and len(run.decisions["patch"]) == 3:
                    raise DataError("a single slice, and the plan's network takes volumes")
                image = to_plan(volume, run.decisions, normalizer).data.astype(np.float16)
            except DataError as error:
                failures[case.key] = str(getattr(error, "reason", error))
                continue
            label = np.zeros(image.shape[1:], structures.code_dtype)
            np.save(known.folder / f"{case.key}.label.npy", label)
            np.save(known.folder / f"{case.key}.spots.npy", spots_of(label, structures))
            np.save(path, image)
        keys.add(case.key)
    return replace(known, keys=frozenset(keys), failures=failures)


def _step_loss(
    decisions: Json,
    images: Prepared,
    said: Prepared,
    keys: Sequence[str],
    masked: Collection[str],
    seed: int,
    where: torch.device,
) -> StepLoss:
    settings = Augmentation.from_json(decisions["augmentation"])
    # The same moves, and no change of values: of probabilities these are what they are.
    moves = replace(
        settings, gain=0.0, offset=0.0, gamma=0.0, noise=0.0, color=0.0, stain=0.0, restain=0.0,
        blur=0.0, coarse=1.0,
    )  # fmt: skip
    batch, spacing = decisions["batch"], tuple(decisions["spacing"])
    structures, dropout = Structures.of(decisions), decisions.get("channel_dropout", 0.0)
    plain = {**decisions, "neighbors": 0}

    def moved(
        prepared: Prepared, by: Json, how: Augmentation, chosen: Sequence[str], step: int
    ) -> tuple[Tensor, Tensor, np.random.Generator]:
        """Return patches and labels; what is drawn depends on the step alone."""
        rng = step_random(seed, step)
        patches, labels = draw(prepared, chosen, by, step * batch, rng)
        x, y = augment(
            torch.from_numpy(patches).to(where),
            how,
            rng,
            labels=torch.from_numpy(labels).to(where),
            spacing=spacing,
        )
        assert y is not None  # noqa: S101 - labels were given
        return x, y, rng

    def step_loss(model: nn.Module, step: int) -> Tensor:
        chosen = [keys[place] for place in batch_positions(len(keys), batch, step, seed)]
        x, codes, rng = moved(images, decisions, settings, chosen, step)
        taught, _, _ = moved(said, plain, moves, chosen, step)
        if dropout:
            x = drop_channels(x, dropout, rng, slices=1 + 2 * neighbors(decisions))
        known = torch.tensor([key in masked for key in chosen], device=where)
        share = decisions["teacher"]["share"]
        return loss(model(x), taught, codes, known, structures, share=share)

    return step_loss
