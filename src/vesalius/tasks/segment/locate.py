# SPDX-License-Identifier: Apache-2.0
"""Where structures may be: a small network on a coarse grid, so that the rest is not looked at.

Coarse to fine, as in the cascades of Roth et al. (Medical Image Analysis 45, 2018) and of nnU-Net,
but for speed alone: windows that the coarse network and a margin rule out are answered as
background. How sure it must be was chosen on validation images, so that none of their structures
was ruled out (`locate_choice`); where it finds nothing at all, every window is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from vesalius.files import read_json
from vesalius.networks import build
from vesalius.tasks.run import Run
from vesalius.tasks.segment.slide import Layout, Network, Unseen, lay_out, slide
from vesalius.tasks.segment.structures import IGNORED, Structures, answers
from vesalius.training.checkpoint import load_tensors
from vesalius.types import Array, Json, Shape3

RECORD, WEIGHTS = "locator.json", "locator.safetensors"
NAME = "any structure"
_SURE = 10.0  # logit of what is ruled out
_MEMORY = 1 << 28  # bytes for the coarse sums


def coarse_decisions(decisions: Json) -> Json:
    """Return the decisions of the coarse network: as the plan's, for one structure that is all."""
    planned = decisions["locator"]
    spacing = np.array(decisions["spacing"]) * planned["factor"]
    return {
        **decisions,
        "labels": [NAME],
        "values": [1],
        "structures": {NAME: [1]},
        "regions": False,
        "network": {**decisions["network"], **planned["network"]},
        "spacing": spacing.tolist(),
        "patch": planned["patch"],
        "batch": planned["batch"],
        "forced_foreground": 1.0,
    }


def new_locator(decisions: Json, seed: int) -> nn.Module:
    """Return the coarse network of a plan with weights drawn from `seed`."""
    network = coarse_decisions(decisions)["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(
            network["name"],
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=2,
            **network["options"],
        )


def coarser(image: Array, factor: list[int]) -> Array:
    """Return the means `(C, i, j, k)` float16 over blocks of an image of the plan's grid."""
    held = torch.from_numpy(np.array(image, np.float32))
    size = _size(held.shape[1:], factor)
    means = functional.avg_pool3d(held, size, ceil_mode=True, count_include_pad=False)
    found: Array = means.numpy().astype(np.float16)
    return found


def coarser_codes(codes: Array, factor: list[int], structures: Structures) -> Array:
    """Return 1 where a block holds any structure, the ignored code where it may, else 0; uint8."""
    marked = np.zeros(codes.shape, bool)
    for index in range(1, 1 + len(structures.sources)):
        marked |= structures.members(codes, index)
    out = np.where(_blocks(structures.ignores(codes), factor), IGNORED, 0).astype(np.uint8)
    out[_blocks(marked, factor)] = 1
    return out


def probabilities(network: Network, image: Array, decisions: Json, device: torch.device) -> Array:
    """Return the probability of any structure in each block `(i, j, k)`, float32.

    Args:
        network: the coarse one.
        image: of `coarser`.
        decisions: of `coarse_decisions`.
        device: of the network.
    """
    i, j, k = image.shape[1:]
    out = np.empty((i, j, k), np.float32)

    def take(block: Tensor, corner: Shape3) -> None:
        here = tuple(slice(a, a + n) for a, n in zip(corner, block.shape[1:], strict=True))
        out[here] = torch.sigmoid(block[1] - block[0]).cpu().numpy()

    layout = lay_out((i, j, k), decisions, classes=2, memory=_MEMORY)
    slide(network, image, layout, take, device=device)
    return out


def widened(values: Array, margin: int) -> Array:
    """Return each block's largest value within `margin` blocks along each axis."""
    found: Array = ndimage.maximum_filter(values, 2 * margin + 1, mode="nearest")
    return found


def touched(blocks: Array, layout: Layout, factor: list[int]) -> dict[Shape3, bool]:
    """Return, for the first voxel of each window, whether it holds a part of any of the blocks."""
    found = {}
    for strip in layout.strips:
        for place in layout.places(strip):
            here = tuple(
                slice(max(0, a) // f, max(0, -(-(a + size) // f)))
                for a, size, f in zip(place, layout.patch, factor, strict=True)
            )
            found[place] = bool(blocks[here].any())
    return found


@dataclass(frozen=True, slots=True)
class Locator:
    """The coarse network with the threshold that validation images set.

    Attributes:
        model: in evaluation mode.
        decisions: of the plan.
        threshold: probability from which a block may be a structure.
        margin: blocks around it that may be, too.
    """

    model: nn.Module
    decisions: Json
    threshold: float
    margin: int

    @classmethod
    def load(cls, run: Run) -> Self | None:
        """Return a run's, None where it has none that is used."""
        path = run.path / RECORD
        record = read_json(path) if path.exists() else {"used": False}
        if not record["used"]:
            return None
        model = new_locator(run.decisions, 0)
        model.load_state_dict(load_tensors(run.path / WEIGHTS)[0])
        return cls(model.eval(), run.decisions, record["threshold"], record["margin"])

    def unseen(
        self, network: Network, image: Array, layout: Layout, device: torch.device
    ) -> Unseen | None:
        """Return the windows that need no look, None where every window does.

        Args:
            network: answers as `model` does, on the device and at the plan's precision.
            image: `(C, i, j, k)` on the plan's grid.
            layout: of the windows.
            device: where answers are summed.
        """
        factor = self.decisions["locator"]["factor"]
        found = probabilities(
            network, coarser(image, factor), coarse_decisions(self.decisions), device
        )
        blocks = widened(found, self.margin) >= self.threshold
        if not blocks.any():
            return None
        looked_at = touched(blocks, layout, factor)
        logits = torch.full((answers(self.decisions),), -_SURE, device=device)
        if not self.decisions.get("regions", False):
            logits[0] = _SURE
        return Unseen(lambda place: not looked_at[place], logits)


def _blocks(mask: Array, factor: list[int]) -> Array:
    held = torch.from_numpy(mask.astype(np.float32))[None]
    size = _size(mask.shape, factor)
    return np.asarray(functional.max_pool3d(held, size, ceil_mode=True)[0].numpy() > 0)


def _size(shape: Sequence[int], factor: Sequence[int]) -> list[int]:
    """Return the voxels of a block; one that is larger than the image is cut to it."""
    return [min(n, f) for n, f in zip(shape, factor, strict=True)]
