# SPDX-License-Identifier: Apache-2.0
"""Learning rate by step: linear warm-up, then a cosine to zero at the last step.

Loshchilov, Hutter: SGDR, ICLR 2017.
"""

from __future__ import annotations

import math


def learning_rate(step: float, *, steps: int, peak: float, warmup: int) -> float:
    """Return the rate for `step` (from 0, or between two steps) of `steps`."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def stride(place: float, *, steps: int, seconds: float, per_step: float) -> float:
    """Return how far along the schedule each further step is to go, 1 where all of them fit.

    On a machine that turned out slower than the probe, fewer steps go the same way to a rate of
    zero: training that stops at a high rate is worth much less.

    Args:
        place: on the schedule, from 0 to `steps`.
        steps: the schedule's length.
        seconds: that are left.
        per_step: seconds that a step has taken so far, validations included.
    """
    fit = max(1.0, seconds / max(per_step, 1e-9))
    return max(1.0, (steps - place) / fit)
