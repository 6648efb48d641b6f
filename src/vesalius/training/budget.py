# SPDX-License-Identifier: Apache-2.0
"""Minutes become a number of steps, by measuring a few."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from vesalius.errors import BudgetError
from vesalius.training.loop import StepLoss, Validate
from vesalius.types import Json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MARGIN = 0.9  # of the time left is planned; the rest is for what a probe cannot see
VALIDATIONS = 10
_SECONDS_AT_THE_END = 3.0  # scores, intervals, card
_PROBE = 8.0  # seconds that trying steps may take, and a tenth of what is left at most


def measure_steps(
    budget: Json,
    model: nn.Module,
    *,
    step_loss: StepLoss,
    validate: Validate,
    fabric: Fabric,
    started: float,
    finals: float,
    most: int,
    checks: float = 1.0,
) -> Json:
    """Return the `steps` of a budget: as asked, or as many as its minutes were measured to fit.

    Args:
        budget: `{"steps": n}`, or `{"minutes": m}` for everything since `started`.
        model: of the plan's shape, to be thrown away: its weights are spoilt.
        step_loss: as in `loop.fit`; drawing the batch is part of what is measured.
        validate: as in `loop.fit`, or on a part of the cases, see `checks`.
        fabric: device and precision.
        started: on the clock of `time.monotonic`.
        finals: the work after training, in validations.
        most: steps beyond which more are pointless.
        checks: calls of `validate` that take as long as one validation of training.

    Raises:
        BudgetError: less than ten steps would fit.
    """
    if "steps" in budget:
        return {"steps": int(budget["steps"])}
    end = started + 60 * float(budget["minutes"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)

    def probe(step: int) -> None:
        wrapped.train()
        fabric.backward(step_loss(wrapped, step))
        wrapped_optimizer.step()
        wrapped_optimizer.zero_grad(set_to_none=True)

    tenth = (end - time.monotonic()) / 10
    per_step = seconds_per_call(probe, at_most=min(_PROBE, max(0.0, tenth)))
    wrapped.eval()
    with torch.no_grad():
        spent = []
        for _ in range(2 if checks > 1 else 1):  # the first call is slower
            start = time.perf_counter()
            validate(wrapped)
            spent.append(time.perf_counter() - start)
        per_validation = checks * min(spent)
    left = end - time.monotonic()
    at_the_end = finals * per_validation + _SECONDS_AT_THE_END
    steps = steps_within(
        left, per_step=per_step, per_validation=per_validation, at_the_end=at_the_end, most=most
    )
    return {
        "steps": steps,
        "seconds_per_step": round(per_step, 4),
        "seconds_per_validation": round(per_validation, 3),
        "stop_after": round(max(1.0, left - at_the_end), 1),
    }


def share(budget: Json, started: float, networks: int) -> Json:
    """Return the budget of each of some networks: the same steps, or its part of what is left.

    Args:
        budget: of all of them.
        started: on the clock of `time.monotonic`, when the minutes began.
        networks: that are still to be trained.
    """
    if "minutes" not in budget:
        return budget
    spent = (time.monotonic() - started) / 60
    return {"minutes": spent + max(0.0, float(budget["minutes"]) - spent) / networks}


def seconds_per_call(call: Callable[[int], object], *, at_most: float = _PROBE) -> float:
    """Return the median seconds of `call(n)`, the first two calls not counted.

    Measures at most twenty calls, within about `at_most` seconds, and at least three: fewer, and
    the last of them counts, only where calls are so slow that two of them take longer.
    """
    begin = time.perf_counter()
    spent: list[float] = []
    for number in range(22):
        start = time.perf_counter()
        call(number)
        spent.append(time.perf_counter() - start)
        elapsed = time.perf_counter() - begin
        if elapsed > (at_most if number >= 4 else 2 * at_most):
            break
    return statistics.median(spent[2:] or spent[-1:])


def steps_within(
    seconds: float, *, per_step: float, per_validation: float, at_the_end: float, most: int
) -> int:
    """Return how many steps fit into `seconds` with their validations and the final work.

    Raises:
        BudgetError: less than ten steps would fit.
    """
    left = MARGIN * seconds - VALIDATIONS * per_validation - at_the_end
    steps = int(left / per_step) if left > 0 else 0
    if steps < 10:
        needed = (10 * per_step + VALIDATIONS * per_validation + at_the_end) / MARGIN
        raise BudgetError(
            f"the {max(0.0, seconds):.0f} seconds left after preparation fit {steps} steps of "
            f"{per_step:.2f} s; give at least {(needed - seconds) / 60 + 0.1:.1f} minutes more, "
            "or --steps"
        )
    return min(steps, most)
