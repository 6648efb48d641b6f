# SPDX-License-Identifier: Apache-2.0
"""Training the coarse network of a run, and whether it is used: by validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vesalius.errors import BudgetError
from vesalius.files import write_json
from vesalius.tasks.run import Run
from vesalius.tasks.segment.locate import (
    RECORD,
    WEIGHTS,
    coarse_decisions,
    coarser,
    coarser_codes,
    new_locator,
    probabilities,
    touched,
    widened,
)
from vesalius.tasks.segment.patches import Prepared, spots_of
from vesalius.tasks.segment.slide import lay_out
from vesalius.tasks.segment.structures import Structures
from vesalius.training import budget, checkpoint
from vesalius.training.loop import Settings, StepLoss, Validate, fit
from vesalius.types import Array, Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHARE = 10  # of the time that is left, one part in so many
MOST_STEPS = 400
MOST_WINDOWS = 0.7  # share of the windows that is looked at, above which it is not worth it
FEWEST = 5  # validation images with a structure, to choose by
_SAFETY = 0.5  # of the threshold that would do for validation images
_LARGEST = 0.5  # threshold
_EXAMPLES = 20  # training images that tell how much could be saved

# step_loss and validate of some decisions, prepared images and keys
StepLossOf = Callable[[Json, Prepared, Sequence[str]], StepLoss]
ValidateOf = Callable[[Json, Prepared, Sequence[str]], Validate]


def fit_locator(
    run: Run,
    prepared: Prepared,
    train: Sequence[str],
    val: Sequence[str],
    *,
    step_loss_of: StepLossOf,
    validate_of: ValidateOf,
    fabric: Fabric,
    started: float,
    progress: Progress | None = None,
) -> Run:
    """Train the coarse network that the plan asks for and write whether it is used.

    Args:
        run: with its plan.
        prepared: images on the plan's grid.
        train, val: keys of images to learn from and to choose by.
        step_loss_of, validate_of: make the loop's functions.
        fabric: device and precision.
        started: `time.monotonic()` when the user's minutes began.
        progress: called as `progress(stage, done, total)`.
    """
    if run.decisions.get("locator") is None or (run.path / RECORD).exists():
        return run
    train = [key for key in train if key in prepared.keys]
    val = [key for key in val if key in prepared.keys]
    needed = _needed(run.decisions, prepared, train[:_EXAMPLES])
    if needed > MOST_WINDOWS:
        return _without(run, f"structures reach into {needed:.0%} of the windows")
    decisions = coarse_decisions(run.decisions)
    coarse = _coarse(run, prepared, [*train, *val])
    step_loss = step_loss_of(decisions, coarse, train)
    validate = validate_of(decisions, coarse, val)
    if "locator" not in run.plan["measured"]:
        try:
            measured = budget.measure_steps(
                budget.share(decisions["budget"], started, SHARE),
                new_locator(run.decisions, 0),
                step_loss=step_loss,
                validate=validate,
                fabric=fabric,
                started=started,
                finals=1.0,
                most=MOST_STEPS,
            )
        except BudgetError:
            return _without(run, "its part of the minutes is too short")
        run = run.measure(locator={**measured, "steps": min(measured["steps"], MOST_STEPS)})
    model = new_locator(run.decisions, int(run.plan["seed"]))
    outcome = fit(
        model,
        step_loss=step_loss,
        validate=validate,
        settings=Settings.from_plan(
            decisions["optimizer"], run.plan["measured"]["locator"], budget.VALIDATIONS
        ),
        folder=run.path / "networks" / "locator",
        fabric=fabric,
        progress=None if progress is None else _told(progress),
    )  # fmt: skip
    record = _choose(run.decisions, prepared, coarse, val, model, fabric)
    checkpoint.save_model(run.path / WEIGHTS, model, {"plan": run.id, "step": outcome.best_step})
    write_json(run.path / RECORD, record)
    return run.note(_said(record))


def _choose(
    decisions: Json,
    prepared: Prepared,
    coarse: Prepared,
    keys: Sequence[str],
    model: nn.Module,
    fabric: Fabric,
) -> Json:
    """Return the record: threshold, margin, what validation images show, whether it is used."""
    planned, coarser_plan = decisions["locator"], coarse_decisions(decisions)
    model = model.to(fabric.device).eval()

    def network(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), fabric.autocast():
            answer: torch.Tensor = model(x.to(fabric.device))
        return answer

    found: dict[str, Array] = {}
    lowest = []
    for key in keys:
        image = np.asarray(coarse.image(key))
        found[key] = widened(
            probabilities(network, image, coarser_plan, fabric.device), planned["margin"]
        )
        inside = np.asarray(coarse.label(key)) == 1
        if inside.any():
            lowest.append(float(found[key][inside].min()))
    record: Json = {
        "used": False,
        "threshold": min([_SAFETY * value for value in lowest] + [_LARGEST]),
        "margin": planned["margin"],
        "images": len(lowest),
        "windows": 1.0,
    }
    if len(lowest) < FEWEST:
        return record
    shares = [
        _share(decisions, prepared.label(key).shape, found[key] >= record["threshold"])
        for key in keys
    ]
    record["windows"] = round(float(np.mean(shares)), 4)
    return record | {"used": record["windows"] <= MOST_WINDOWS}


def _needed(decisions: Json, prepared: Prepared, keys: Sequence[str]) -> float:
    """Return the share of windows that hold a structure or are next to one, of some images."""
    planned, structures = decisions["locator"], Structures.of(decisions)
    shares = []
    for key in keys:
        codes = np.asarray(prepared.label(key))
        blocks = coarser_codes(codes, planned["factor"], structures) == 1
        shares.append(_share(decisions, codes.shape, widened(blocks, planned["margin"])))
    return float(np.mean(shares))


def _share(decisions: Json, shape: tuple[int, ...], blocks: Array) -> float:
    """Return the share of an image's windows that touch any of the blocks, 1 where none does."""
    i, j, k = shape
    layout = lay_out((i, j, k), decisions, classes=2, memory=1 << 60)
    found = list(touched(blocks, layout, decisions["locator"]["factor"]).values())
    return sum(found) / len(found) if any(found) else 1.0


def _coarse(run: Run, prepared: Prepared, keys: Sequence[str]) -> Prepared:
    """Return the images on the coarse grid, written beside the finer ones."""
    factor, structures = run.decisions["locator"]["factor"], Structures.of(run.decisions)
    together = Structures.of(coarse_decisions(run.decisions))
    folder = prepared.folder / "coarse"
    folder.mkdir(exist_ok=True)
    for key in keys:
        codes = coarser_codes(np.asarray(prepared.label(key)), factor, structures)
        np.save(folder / f"{key}.image.npy", coarser(prepared.image(key), factor))
        np.save(folder / f"{key}.label.npy", codes)
        np.save(folder / f"{key}.spots.npy", spots_of(codes, together))
    return Prepared(folder, frozenset(keys), {})


def _without(run: Run, why: str) -> Run:
    write_json(run.path / RECORD, {"used": False, "why": why})
    return run.note(f"every window is looked at: {why}")


def _said(record: Json) -> str:
    count, share = record["images"], record["windows"]
    if record["used"]:
        return (
            f"a coarse network leaves windows out: of {count} validation images it looks at "
            f"{share:.0%} of the windows, and none of their structures lies elsewhere"
        )
    if count < FEWEST:
        return (
            f"every window is looked at: {count} validation images show a structure, and {FEWEST} "
            "are needed to leave windows out"
        )
    return (
        f"every window is looked at: to lose nothing of {count} validation images, a coarse "
        f"network would look at {share:.0%} of the windows"
    )


def _told(progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{stage} where to look", done, total)
