# SPDX-License-Identifier: Apache-2.0
"""`vesalius models`: the architectures by name, and what one input costs each."""

from __future__ import annotations

from vesalius.errors import UsageError
from vesalius.types import Json

_STEMMED = ("fcn", "light-unet")  # segmentation networks on an encoder with a choice of stem


def models(*, side: int = 224, volume: bool = False) -> list[Json]:
    """Return name, task, parameters and multiply-adds of each network.

    Args:
        side: pixels (voxels) of each side of the input, of one channel. A network that segments
            is counted at the next larger side that it takes, which its row states.
        volume: a cube instead of an image.
    """
    import torch

    from vesalius.networks import IMAGE_NETWORKS, SEGMENTATION_NETWORKS, build
    from vesalius.networks.cost import network_cost
    from vesalius.networks.pretrained import PRETRAINED

    stem = "small" if side <= 48 else "medium" if side <= 64 else "large"
    if not 8 <= side <= 1024:
        raise UsageError(f"side must be 8 to 1024, got {side}")
    dims = 3 if volume else 2
    pretrained = {*PRETRAINED} if volume else {*PRETRAINED, "light-unet"}
    rows: list[Json] = []
    for name in (*IMAGE_NETWORKS, *SEGMENTATION_NETWORKS):
        segments = name in SEGMENTATION_NETWORKS
        options = {"stem": stem} if not segments or name in _STEMMED else {}
        with torch.device("meta"):  # shapes alone: no weight is drawn
            network = build(name, spatial_dims=dims, in_channels=1, out_channels=2, **options)
        shape = [side] * dims
        if segments:
            multiple: tuple[int, ...] = network.multiple  # type: ignore[assignment]
            shape = [max(2, -(-side // step)) * step for step in multiple]
        cost = network_cost(network, (1, *shape))
        rows.append(
            {
                "name": name,
                "task": "segment" if segments else "classify",
                "side": shape[0],
                "stem": options.get("stem", ""),
                "parameters": cost.parameters,
                "multiply_adds": cost.multiply_adds,
                "pretrained": name in pretrained,
            }
        )
    return rows
