# SPDX-License-Identifier: Apache-2.0
"""Which case comes at which step: a pure function of seed and step, so that resume is exact."""

from __future__ import annotations

import numpy as np

from vesalius.types import Array


def batch_positions(cases: int, batch: int, step: int, seed: int) -> list[int]:
    """Return the positions of the cases of one batch; every case comes once per epoch."""
    out: list[int] = []
    shuffled: dict[int, Array] = {}
    for place in range(step * batch, (step + 1) * batch):
        epoch, position = divmod(place, cases)
        if epoch not in shuffled:
            shuffled[epoch] = np.random.default_rng([seed, 1, epoch]).permutation(cases)
        out.append(int(shuffled[epoch][position]))
    return out


def step_random(seed: int, step: int) -> np.random.Generator:
    """Return the generator of everything that is drawn at one step."""
    return np.random.default_rng([seed, 2, step])
