# SPDX-License-Identifier: Apache-2.0
"""`vesalius models`: the architectures by name, and what one input costs each."""

from __future__ import annotations

from vesalius.errors import UsageError
from vesalius.types import Json


def models(*, side: int = 224, volume: bool = False) -> list[Json]:
    """Return name, parameters and multiply-adds of each network that can classify.

    Args:
        side: pixels (voxels) of each side of the input, of one channel.
        volume: a cube instead of an image.
    """
    from vesalius.networks import IMAGE_NETWORKS, build
    from vesalius.networks.cost import network_cost
    from vesalius.networks.pretrained import PRETRAINED

    stem = "small" if side <= 48 else "medium" if side <= 64 else "large"
    if not 8 <= side <= 1024:
        raise UsageError(f"side must be 8 to 1024, got {side}")
    dims = 3 if volume else 2
    rows: list[Json] = []
    for name in IMAGE_NETWORKS:
        network = build(name, spatial_dims=dims, in_channels=1, out_channels=2, stem=stem)
        cost = network_cost(network, (1, *[side] * dims))
        rows.append(
            {
                "name": name,
                "stem": stem,
                "parameters": cost.parameters,
                "multiply_adds": cost.multiply_adds,
                "pretrained": name in PRETRAINED,
            }
        )
    return rows
