# SPDX-License-Identifier: Apache-2.0
"""The training loop: by steps, resumable at any moment, best model by validation kept.

The loop knows nothing of images: `step_loss(model, step)` draws the step's batch, a pure function
of seed and step, and returns the loss; `validate(model)` returns scores, of which `score` decides.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vesalius.errors import RunError
from vesalius.training import checkpoint
from vesalius.training.log import Log
from vesalius.training.schedule import learning_rate, stride
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "checkpoint/state.safetensors"
BEST = "checkpoint/best.safetensors"
LOG = "log.jsonl"
LOGGED_STEPS = 200

StepLoss = Callable[[nn.Module, int], Tensor]
Validate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        steps: the schedule's length.
        lr: peak learning rate of AdamW (Loshchilov & Hutter, ICLR 2019).
        warmup: steps until the peak.
        weight_decay: decoupled.
        clip_norm: largest norm of the gradient.
        validate_every: steps between validations; one always follows the last step.
        checkpoint_seconds: at least this long between two saved states; longer where saving is
            slow, so that it takes a twentieth of the time at most.
        ema: decay of the running mean of the weights, which is what is validated and kept (Polyak
            averaging; Tarvainen & Valpola, NeurIPS 2017: at most `(1 + step) / (10 + step)`); 0:
            the weights themselves.
        stop_after: seconds of training (those before a crash included) that the loop keeps to
            where the machine turns out slower than the probe: fewer steps, each further along
            the schedule, so that it still anneals to its end; None under --steps.
    """

    steps: int
    lr: float
    warmup: int
    weight_decay: float
    clip_norm: float
    validate_every: int
    checkpoint_seconds: float = 1.0
    ema: float = 0.0
    stop_after: float | None = None

    @classmethod
    def from_plan(cls, optimizer: Json, measured: Json, validations: int) -> Settings:
        """Return the settings of a plan: its optimizer, and its number of steps as measured."""
        steps = int(measured["steps"])
        return cls(
            steps=steps,
            lr=optimizer["lr"],
            warmup=max(1, steps // 20),
            weight_decay=optimizer["weight_decay"],
            clip_norm=optimizer["clip_norm"],
            validate_every=max(1, steps // validations),
            ema=optimizer.get("ema", 0.0),
            stop_after=measured.get("stop_after"),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the loop did: steps done, the best validation and its step, seconds, why it ended."""

    steps: int
    best_step: int
    best_scores: Json
    seconds: float
    ended: str  # "schedule" | "time"


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW; weights of one axis (norms, biases) are not decayed."""
    flat = [p for p in model.parameters() if p.ndim <= 1]
    deep = [p for p in model.parameters() if p.ndim > 1]
    groups = [
        {"params": deep, "weight_decay": settings.weight_decay},
        {"params": flat, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.lr)


def fit(
    model: nn.Module,
    *,
    step_loss: StepLoss,
    validate: Validate,
    settings: Settings,
    folder: Path,
    fabric: Fabric,
    judge_start: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train `model` in place, resuming from `folder` if it holds a state; end with the best.

    When it returns, `model` holds the weights of the best validation, and `folder` its state,
    its best weights and its log. With `judge_start` the weights that `model` comes with are
    validated too, as step 0, and stay if no later ones are better.

    Raises:
        RunError: the loss is not finite, or the saved state does not fit.
    """
    optimizer = make_optimizer(model, settings)
    record: Json = {"step": 0, "best_step": -1, "best": {}, "seconds": 0.0, "sum": 0.0, "n": 0}
    record |= {"ended": "", "place": 0.0, "stride": 1.0}  # on the schedule, a step's way on it
    average = copy.deepcopy(model) if settings.ema else model
    if (folder / STATE).exists():
        record = checkpoint.load_state(folder / STATE, model, optimizer, average)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    judged = fabric.setup_module(average) if settings.ema else wrapped

    def judge(step: int, before: float) -> float:
        """Validate, keep the weights if they are the best, return the seconds of training."""
        begin = time.monotonic()
        judged.eval()
        with torch.no_grad():
            scores = dict(validate(judged))
        seconds = before + time.monotonic() - begin
        log.write("validation", step=step, scores=scores, seconds=round(seconds, 2))
        if record["best_step"] < 0 or scores["score"] > record["best"]["score"]:
            record["best_step"], record["best"] = step, scores
            checkpoint.save_model(folder / BEST, average, {"step": step, "scores": scores})
        return seconds

    with Log(folder / LOG, keep_to_step=record["step"] if record["step"] else -1) as log:
        if not record["step"]:
            log.write("start", step=0, steps=settings.steps)
            if judge_start:
                judge(0, 0.0)
        log_every = max(1, settings.steps // LOGGED_STEPS)
        before = record["seconds"]
        start = saved = time.monotonic()
        pause = settings.checkpoint_seconds
        step = record["step"]
        while not record["ended"]:
            rate = learning_rate(
                record["place"], steps=settings.steps, peak=settings.lr, warmup=settings.warmup
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            wrapped.train()
            loss = step_loss(wrapped, step)
            wrapped_optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            wrapped_optimizer.step()
            step += 1
            record["place"] += record["stride"]
            if settings.ema:
                _follow(average, model, min(settings.ema, (1 + step) / (10 + step)))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise RunError(
                    f"the loss is {value} at step {step}; look at the data with `vesalius check`, "
                    "or train with another seed"
                )
            record["sum"] += value
            record["n"] += 1
            now = time.monotonic()
            seconds = before + now - start
            late = settings.stop_after is not None and seconds > settings.stop_after
            through = record["place"] > settings.steps - 0.5
            if through or late:
                record["ended"] = "schedule" if through else "time"
            last = bool(record["ended"])
            if step % log_every == 0 or last:
                mean = record["sum"] / record["n"]
                record["sum"], record["n"] = 0.0, 0
                log.write("step", step=step, loss=mean, lr=rate, seconds=round(seconds, 2))
                if settings.stop_after is not None:
                    record["stride"] = stride(
                        record["place"],
                        steps=settings.steps,
                        seconds=settings.stop_after - seconds,
                        per_step=seconds / step,
                    )
            if step % settings.validate_every == 0 or last:
                seconds = judge(step, before + time.monotonic() - start)
            if last or now - saved >= pause:
                record["step"], record["seconds"] = step, seconds
                begin = time.monotonic()
                log.sync()
                checkpoint.save_state(folder / STATE, model, optimizer, record, average)
                saved = time.monotonic()
                pause = max(settings.checkpoint_seconds, 20 * (saved - begin))
            if progress is not None:
                progress("training", step, settings.steps)
        log.write("end", step=step, best_step=record["best_step"], ended=record["ended"])
    tensors, best = checkpoint.load_tensors(folder / BEST)
    model.load_state_dict(tensors)
    return Outcome(step, best["step"], best["scores"], record["seconds"], record["ended"])


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move every floating tensor of `average` a step towards that of `model`; copy the others."""
    for held, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if held.is_floating_point():
            held.lerp_(value.to(held.dtype), 1 - decay)
        else:
            held.copy_(value)
