# SPDX-License-Identifier: Apache-2.0
"""Minutes become a number of steps, by measuring a few."""

from __future__ import annotations

import time
from collections.abc import Callable

from vesalius.errors import BudgetError

MARGIN = 0.9  # of the time left is planned; the rest is for what a probe cannot see
VALIDATIONS = 10


def seconds_per_call(call: Callable[[int], object], *, at_most: float = 10.0) -> float:
    """Return the mean seconds of `call(n)` after one unmeasured call.

    Measures at least two and at most eight calls, within about `at_most` seconds.
    """
    call(0)
    start = time.perf_counter()
    for count in range(1, 9):
        call(count)
        spent = time.perf_counter() - start
        if count >= 2 and spent * (count + 1) / count > at_most:
            break
    return spent / count


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
