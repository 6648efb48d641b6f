# SPDX-License-Identifier: Apache-2.0
"""From a cohort with boxes to a finished detection run, resumable."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.cohorts.splits import Split, make_split
from vesalius.errors import UsageError
from vesalius.tasks.detect import plan as planning
from vesalius.tasks.detect.cases import detection_cases
from vesalius.tasks.detect.fit import train_run
from vesalius.tasks.run import Run, find_run, start_run
from vesalius.types import Json, PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort


def train_detector(
    cohort: Cohort,
    *,
    minutes: float = 10.0,
    steps: int | None = None,
    out: PathLike | None = None,
    model: str = "auto",
    normalize: str = "auto",
    split: PathLike | Split | None = None,
    ungrouped_split: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "",
) -> Run:
    """Train a detector on the boxes of a cohort and return its run.

    The same call after an interruption finds the same run and does its remaining steps; after the
    end it returns the finished run at once.

    Args:
        cohort: with boxes (Pascal VOC or COCO files beside the images when it was scanned).
        minutes: wall minutes for everything; a probe turns them into steps, written in the plan.
        steps: exact number of steps instead.
        out: run folder; default `runs/detect-<plan's hash>`.
        model: an encoder's name, or `auto`.
        normalize: intensity method, or `auto`.
        split: a split or its file; default by patient and near-duplicate, official ones honored.
        ungrouped_split: allow one patient on both sides (named in the audit).
        seed: of split, weights, order and augmentation.
        progress: called as `progress(stage, done, total)`.
        command: the exact command, for the report; default this call.

    Raises:
        UsageError: a wrong argument. CohortError: no boxes, or too few images.
        BudgetError: the minutes do not suffice for ten steps. RunError: `out` holds another run.
    """
    started = time.monotonic()
    if steps is not None and steps < 1:
        raise UsageError(f"steps must be at least 1, got {steps}")
    cases = detection_cases(cohort)
    parted = split if isinstance(split, Split) else _split(cohort, split, ungrouped_split, seed)
    budget: Json = {"steps": steps} if steps is not None else {"minutes": minutes}
    request: Json = {
        "task": "detect",
        "seed": seed,
        "model": model,
        "budget": budget,
        "normalize": normalize,
        "where": cohort.where,
        "cohort": cohort.digest(),
        "split": parted.digest(),
    }
    folder = Path(out) if out is not None else None
    run = find_run(request, folder)
    if run is not None and run.finished:
        return run.note("this run was finished before; nothing was trained again")
    if run is None:
        found = planning.fingerprint(cases.subset(parted.rows, "train"))
        decisions = planning.decide(found, model=model, budget=budget, normalize=normalize)
        plan: Json = {
            "task": "detect",
            "target": None,
            "seed": seed,
            "request": request,
            "fingerprint": found,
            "decisions": decisions,
            "estimates": {"cache_bytes": planning.cache_bytes(found, decisions)},
            "measured": {},
            "command": command or f"train_detector(cohort, {budget}, seed={seed})",
            "cohort": {
                "digest": request["cohort"],
                "version": cohort.version,
                "license": cohort.license,
                "where": cohort.where,
            },
            "split_digest": request["split"],
            "audit": [*cases.audit, *_remarks(found, decisions), *parted.audit],
        }
        run = start_run(plan, folder)
    if not (run.path / "split.json").exists():
        parted.save(run.path / "split.json")
    run = train_run(run, cohort, cases, started=started, progress=progress)
    return run.measure(seconds=round(time.monotonic() - started, 1))


def _split(cohort: Cohort, path: PathLike | None, ungrouped: bool, seed: int) -> Split:
    if path is not None:
        return Split.load(Path(path))
    return make_split(cohort, target=None, seed=seed, ungrouped=ungrouped)


def _remarks(found: Json, decisions: Json) -> list[str]:
    return [
        f"{found['images'] - found['classes'][name]['images']} training images without any "
        f"'{name}' are taken as not annotated for it: nearly all others show several"
        for name in decisions["always"]
        if found["classes"][name]["images"] < found["images"]
    ]
