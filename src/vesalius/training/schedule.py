# SPDX-License-Identifier: Apache-2.0
"""Learning rate by step: linear warm-up, then a cosine to zero at the last step.

Loshchilov, Hutter: SGDR, ICLR 2017.
"""

from __future__ import annotations

import math


def learning_rate(step: int, *, steps: int, peak: float, warmup: int) -> float:
    """Return the rate for `step` (from 0) of `steps`."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
