# SPDX-License-Identifier: Apache-2.0
"""How long a plan will take and how much memory, by doing a little of it: images and steps."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import BudgetError, DataError
from vesalius.flows.planning.draft import Data
from vesalius.flows.planning.memory import PeakMemory, held_memory
from vesalius.flows.planning.trial import Trial, random_image, views_of_image
from vesalius.flows.planning.trials import trials
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vesalius.normalization import Normalizer
    from vesalius.tasks.cases import Case

_IMAGES = 3  # that are prepared
_STEPS = 5  # of each network that are trained
_VIEWS = 64  # that a frozen encoder is shown


def estimate(plan: Json, data: Data, encoder: PathLike | None) -> Json:
    """Return the estimates of a plan.

    Args:
        plan: of `draft`.
        data: that it was made from.
        encoder: the user's encoder file, where the plan has one.

    Returns:
        `cache_bytes` of the prepared images on disk; `memory_bytes`, the peak of the process;
        `images`, how many are prepared, and `preparing_seconds`; `frozen`, for each encoder
        `seconds`; `networks`, for each `parameters`, `training_bytes` (memory that training takes
        beside what the process held before), `device_bytes` on a GPU, `seconds_per_step`,
        `seconds_per_validation`, `steps` and `seconds`, with folds those of one of them and `folds`
        their number; `left_out`, networks beside heads that the minutes are too few for, and why;
        `seconds` of everything. Fitting heads and writing the report come on top.

    Raises:
        BudgetError: the minutes do not suffice for ten steps, and there are no heads either.
    """
    from vesalius.training.device import place

    place()  # bounds the threads, as training does
    decisions, found = plan["decisions"], plan["fingerprint"]
    rows = _rows(plan, data)
    per_image, peak = _prepare_some(plan, data, rows)
    spent = len(rows) * per_image
    result: Json = {**plan["estimates"], "images": len(rows), "preparing_seconds": round(spent, 3)}
    peaks = [peak]
    if plan["task"] in ("classify", "retrieve"):
        result["frozen"] = {}
        count = len(rows) * views_of_image(found, decisions)
        frozen = decisions["frozen"]
        for spec in frozen if isinstance(frozen, list) else [frozen]:
            with PeakMemory() as memory:
                seconds = count * _seconds_per_view(spec, decisions, encoder)
            peaks.append(memory.peak)
            spent += seconds
            result["frozen"][f"{spec['encoder']}-{spec['size']}"] = {"seconds": round(seconds, 3)}
    result["networks"] = {}
    found_trials = trials(plan, data)
    left = 60 * decisions["budget"].get("minutes", 0.0) - spent
    if decisions.get("locator"):
        from vesalius.tasks.segment.locate_fit import SHARE

        left -= left / SHARE  # of the coarse network
    folds = decisions.get("folds", 1)
    for trial in found_trials:
        try:
            measured, peak = _measure(trial, decisions, left / len(found_trials) / folds)
        except BudgetError as error:
            if not decisions.get("frozen"):  # whose heads would answer in its place
                raise
            result.setdefault("left_out", {})[trial.name] = str(error)
            continue
        peaks.append(peak)
        spent += folds * measured["seconds"]
        result["networks"][trial.name] = measured | ({"folds": folds} if folds > 1 else {})
    return {**result, "memory_bytes": max(peaks), "seconds": round(spent, 3)}


def _rows(plan: Json, data: Data) -> list[Json]:
    """Return the images that training prepares, those of training first."""
    cases: list[Case] = data.subset("train") + data.subset("val")
    if plan["task"] == "segment":
        from vesalius.tasks.segment.fit import CHECKED

        cases = data.learned() + ([] if data.folds else data.subset("val")[:CHECKED])
    if plan["task"] == "classify":
        cases += data.subset("calibration")
    return [row for case in cases for row in case.rows]


def _prepare_some(plan: Json, data: Data, rows: list[Json]) -> tuple[float, int]:
    """Return seconds an image, and the peak of memory, from the largest and some others."""
    from vesalius.normalization import Normalizer
    from vesalius.normalization.method import module_of
    from vesalius.tasks.normalizing import DEFAULT

    module = module_of(plan["decisions"]["normalization"])
    # What has to be fitted is about as quick as the default, which has not.
    normalizer = Normalizer(module_of(DEFAULT).METHOD() if module.CARD.fitted else module.METHOD())
    largest = max(rows, key=lambda row: int(np.prod(row["shape"])))
    others = np.random.default_rng(int(plan["seed"])).permutation(len(rows))[: _IMAGES - 1]
    seconds = []
    with PeakMemory() as memory:
        for row in (largest, *(rows[place] for place in others)):
            start = time.perf_counter()
            try:
                _prepare(plan, data, row, normalizer)
            except DataError:
                continue  # named when training prepares it
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) if seconds else 0.0, memory.peak


def _prepare(plan: Json, data: Data, row: Json, normalizer: Normalizer) -> None:
    decisions, volume = plan["decisions"], data.cohort.read(row)
    if plan["task"] == "segment":
        from vesalius.tasks.segment import grid

        grid.mask_to_plan(data.cohort.read_mask(row), volume, decisions)
        grid.to_plan(volume, decisions, normalizer)
    elif plan["task"] == "detect":
        from vesalius.tasks.detect import images

        images.to_plan(volume, decisions, normalizer)
    else:
        from vesalius.tasks.views import make_views

        make_views(volume, decisions, normalizer)


def _seconds_per_view(spec: Json, decisions: Json, encoder: PathLike | None) -> float:
    from vesalius.tasks.frozen import FrozenEncoder

    with tempfile.TemporaryDirectory() as folder:
        if encoder is not None:
            shutil.copyfile(encoder, Path(folder) / spec["file"])
        frozen = FrozenEncoder(spec, Path(folder))
    frozen.image(random_image(decisions, 2))  # the first call is slower
    start = time.perf_counter()
    frozen.image(random_image(decisions, _VIEWS))
    return (time.perf_counter() - start) / _VIEWS


def _measure(trial: Trial, decisions: Json, left: float) -> tuple[Json, int]:
    """Return what training a network takes, and the peak of the process's memory in bytes.

    The network is trained for a few steps and validated, in a folder that is thrown away.

    Args:
        trial: the network.
        decisions: of the plan.
        left: seconds for it, where the budget is of minutes.
    """
    import torch

    from vesalius.training import budget, device
    from vesalius.training.loop import Settings, fit

    fabric = device.start(decisions["precision"])
    cuda = fabric.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(fabric.device)
    begun: list[float] = []  # steps, then the validation and its end

    def step_loss(model: nn.Module, _: int) -> Tensor:
        begun.append(time.perf_counter())
        return trial.step_loss(model, fabric.device)

    def validate(model: nn.Module) -> dict[str, float]:
        begun.append(time.perf_counter())
        trial.check(model, fabric.device)
        begun.append(time.perf_counter())
        return {"score": 0.0}

    settings = Settings(
        steps=_STEPS,
        lr=1e-6,
        warmup=1,
        weight_decay=trial.optimizer["weight_decay"],
        clip_norm=trial.optimizer["clip_norm"],
        validate_every=_STEPS,
        ema=trial.optimizer.get("ema", 0.0),
    )
    held = held_memory()
    with PeakMemory() as memory, tempfile.TemporaryDirectory() as folder:
        model = trial.build()
        fit(
            model,
            step_loss=step_loss,
            validate=validate,
            settings=settings,
            folder=Path(folder),
            fabric=fabric,
        )
    spent = np.diff(begun)
    per_step = float(np.median(spent[1:_STEPS]))  # the first is slower
    per_validation = trial.checks * float(spent[_STEPS])
    at_the_end = trial.finals * per_validation
    steps = decisions["budget"].get("steps")
    if steps is None:
        steps = budget.steps_within(
            left,
            per_step=per_step,
            per_validation=per_validation,
            at_the_end=at_the_end,
            most=trial.most,
        )
    seconds = steps * per_step + budget.VALIDATIONS * per_validation + at_the_end
    result: Json = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_bytes": max(0, memory.peak - held),
        "seconds_per_step": round(per_step, 4),
        "seconds_per_validation": round(per_validation, 3),
        "steps": steps,
        "seconds": round(seconds, 3),
    }
    if cuda:
        result["device_bytes"] = torch.cuda.max_memory_allocated(fabric.device)
    return result, memory.peak
