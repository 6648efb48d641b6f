# SPDX-License-Identifier: Apache-2.0
"""How large a patch may be: by the machine, and by how many of them the budget pays for."""

from __future__ import annotations

from vesalius.types import Json

# (axes, on a GPU) -> voxels of a patch, and patches that the median image may be worth before its
# spacing is coarsened.
_LIMITS = {
    (2, False): (2**15, 1),
    (3, False): (2**17, 24),
    (2, True): (2**18, 16),
    (3, True): (2**21, 64),
}
# On CPUs a network of two axes sees its image whole, and learns several times faster per minute of
# one that is coarser. With time enough the finer one is better: the limit doubles as long as the
# budget pays for this many patches.
ENOUGH = 8000
_PIXELS = 500_000  # that one thread learns from in a second, about, of a plan's U-Net
_PATCHES = 4  # of a step, about
_MOST = 2**18


def patch_limit(dims: int, budget: Json, *, large: bool, threads: int) -> tuple[int, int]:
    """Return the voxels of a patch, and how many patches the median image may be worth.

    Args:
        dims: axes of the network.
        budget: `{"minutes": m}` or `{"steps": n}`.
        large: whether there is a GPU.
        threads: that train, where there is none.
    """
    limit, windows = _LIMITS[dims, large]
    if dims == 3 or large:
        return limit, windows
    while 2 * limit <= _MOST and _patches(budget, 2 * limit, threads) >= ENOUGH:
        limit *= 2
    return limit, windows


def _patches(budget: Json, limit: int, threads: int) -> float:
    """Return how many patches of that size the budget pays for, about."""
    if "steps" in budget:
        return float(_PATCHES * budget["steps"])
    return float(60 * budget["minutes"] * threads * _PIXELS / limit)
