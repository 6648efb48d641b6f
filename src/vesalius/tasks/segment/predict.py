# SPDX-License-Identifier: Apache-2.0
"""Label maps of images from a run, on the source's own grid: the one way, used everywhere."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import RunError
from vesalius.networks import build
from vesalius.networks.pretrained import load_pretrained
from vesalius.normalization import Normalizer
from vesalius.tasks.run import Run
from vesalius.tasks.segment.argmax import Argmax
from vesalius.tasks.segment.doubt import Doubt
from vesalius.tasks.segment.grid import empty_labels, plan_shape, to_plan
from vesalius.tasks.segment.slide import Layout, lay_out, quarter_of, slide
from vesalius.training import device
from vesalius.types import Json, Shape3
from vesalius.volume import LabelMap, Volume


class Segmenter:
    """A trained model with its normalizer, in evaluation mode, at the plan's precision."""

    def __init__(self, model: nn.Module, decisions: Json, normalizer: Normalizer) -> None:
        self.decisions = decisions
        self.normalizer = normalizer
        self.fabric = device.start(decisions["precision"])
        self.model = model.to(self.fabric.device).eval()

    @classmethod
    def load(cls, run: Run) -> Self:
        """Load a run's weights; nothing is unpickled.

        Raises:
            RunError: the run is of another task, or incomplete.
        """
        if run.task != "segment":
            raise RunError(f"the run must be of the task 'segment', got '{run.task}'")
        model = new_model(run.decisions, 0)
        model.load_state_dict(run.weights())
        return cls(model, run.decisions, run.normalizer())

    def layout(self, volume: Volume, *, memory: int | None = None) -> Layout:
        """Return what `predict` will compute and take of its device's memory, before it does.

        Raises:
            BudgetError: the memory does not suffice.
        """
        return lay_out(
            plan_shape(volume, self.decisions),
            self.decisions,
            classes=1 + len(self.decisions["labels"]),
            memory=quarter_of(self.fabric.device) if memory is None else memory,
        )

    def predict(
        self, volume: Volume, *, memory: int | None = None, doubt: Doubt | None = None
    ) -> LabelMap:
        """Return the label map of one image, voxel for voxel on its grid.

        Args:
            volume: the image.
            memory: bytes that logits may take on the network's device; None for a quarter of it.
            doubt: is given all logits too, on the plan's grid.

        Raises:
            DataError: the image cannot be normalized or has the wrong channels, or the network's
                answer is not a number.
            BudgetError: the memory does not suffice.
        """
        layout = self.layout(volume, memory=memory)
        # Half precision, as the network saw it in training.
        image = to_plan(volume, self.decisions, self.normalizer).data.astype(np.float16)
        labels, along_plan = empty_labels(volume, self.decisions)
        found = Argmax(along_plan, [0, *self.decisions["values"]], layout.shape)

        def take(block: Tensor, corner: Shape3) -> None:
            found.take(block, corner)
            if doubt is not None:
                doubt.take(block, corner)

        slide(self.logits, image, layout, take, device=self.fabric.device)
        return labels

    def logits(self, patch: Tensor) -> Tensor:
        """Return logits of a batch of patches."""
        with torch.inference_mode(), self.fabric.autocast():
            answer: Tensor = self.model(patch.to(self.fabric.device))
        return answer


def new_model(decisions: Json, seed: int) -> nn.Module:
    """Return a model with weights drawn from `seed`."""
    network = decisions["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(
            network["name"],
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=1 + len(decisions["labels"]),
            **network["options"],
        )
    if network["weights"] == "imagenet":
        load_pretrained(model.encoder, "efficientnet_lite0", in_channels=network["in_channels"])  # type: ignore[arg-type]  # a light U-Net's
    return model
