# SPDX-License-Identifier: Apache-2.0
"""Label maps of images from a run, on the source's own grid: the one way, used everywhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import RunError, UsageError
from vesalius.networks import build
from vesalius.networks.memory_format import innermost, ready_to_answer
from vesalius.networks.pretrained import load_pretrained
from vesalius.normalization import Normalizer
from vesalius.tasks.run import Run
from vesalius.tasks.segment.above import labeler
from vesalius.tasks.segment.answering import begin_at_shares
from vesalius.tasks.segment.doubt import Doubt
from vesalius.tasks.segment.ensemble import Ensemble, mirrored
from vesalius.tasks.segment.exported import exported_network
from vesalius.tasks.segment.footprint import sums_bytes
from vesalius.tasks.segment.grid import empty_labels, plan_shape, to_plan
from vesalius.tasks.segment.largest_piece import keep_largest, kept_labels
from vesalius.tasks.segment.locate import Locator
from vesalius.tasks.segment.slide import Layout, Network, lay_out, slide
from vesalius.tasks.segment.structures import answers
from vesalius.training import device
from vesalius.types import Json, Shape3
from vesalius.volume import LabelMap, Volume


class Segmenter:
    """A trained model with its normalizer, in evaluation mode, at the plan's precision.

    Args:
        model: one network, or the ensemble of a plan with folds.
        decisions: of the plan.
        normalizer: of the run.
        largest: structures of which only the largest piece is kept, see `largest_piece`.
        locator: says which windows need no look; None where all of them do.
    """

    def __init__(
        self,
        model: nn.Module,
        decisions: Json,
        normalizer: Normalizer,
        *,
        largest: Sequence[str] = (),
        locator: Locator | None = None,
    ) -> None:
        self.decisions = decisions
        self.normalizer = normalizer
        self.largest = tuple(largest)
        self.locator = locator
        self.fabric = device.start(decisions["precision"])
        self.model = model.to(self.fabric.device).eval()
        # Engines of exported networks, which have no weights here, lay out memory themselves.
        self.near = self.fabric.device.type == "cpu" and any(True for _ in model.parameters())
        if self.near:
            ready_to_answer(self.model, half=decisions["precision"] == "bf16-mixed")

    @classmethod
    def load(cls, run: Run) -> Self:
        """Load a run's weights, or the network of an exported one; nothing is unpickled.

        Raises:
            RunError: the run is of another task, or incomplete.
        """
        if run.task != "segment":
            raise RunError(f"the run must be of the task 'segment', got '{run.task}'")
        if run.exported:
            model: nn.Module = exported_network(run)
        else:
            model = whole_model(run.decisions)
            model.load_state_dict(run.weights())
        return cls(
            model,
            run.decisions,
            run.normalizer(),
            largest=kept_labels(run.path),
            locator=Locator.load(run),
        )

    def with_largest(self, labels: Sequence[str]) -> Self:
        """Return the same, of which only the largest piece of these structures is kept."""
        other = copy.copy(self)
        other.largest = tuple(labels)
        return other

    def everywhere(self) -> Self:
        """Return the same, that looks at every window."""
        other = copy.copy(self)
        other.locator = None
        return other

    def member(self, number: int) -> Self:
        """Return the network of one fold, from 0, alone."""
        other = copy.copy(self)
        if isinstance(self.model, Ensemble):
            other.model = self.model.members[number]
        return other

    def layout(self, volume: Volume, *, memory: int | None = None, mirror: bool = False) -> Layout:
        """Return what `predict` will compute and take of its device's memory, before it does.

        Raises:
            BudgetError: the memory does not suffice.
        """
        return lay_out(
            plan_shape(volume, self.decisions),
            self.decisions,
            classes=answers(self.decisions),
            memory=sums_bytes(self.decisions, self.fabric.device) if memory is None else memory,
            several=mirror or self.decisions.get("folds", 1) > 1,
        )

    def predict(
        self,
        volume: Volume,
        *,
        memory: int | None = None,
        doubt: Doubt | None = None,
        mirror: bool = False,
    ) -> LabelMap:
        """Return the label map of one image, voxel for voxel on its grid.

        Args:
            volume: the image.
            memory: bytes that logits may take on the network's device; None for a quarter of it.
            doubt: is given all logits too, on the plan's grid.
            mirror: answer by the mean over the mirror images that the plan's augmentation makes.

        Raises:
            UsageError: the plan mirrors nothing.
            DataError: the image cannot be normalized or has the wrong channels, or the network's
                answer is not a number.
            BudgetError: the memory does not suffice.
        """
        layout = self.layout(volume, memory=memory, mirror=mirror)
        # Half precision, as the network saw it in training.
        image = to_plan(volume, self.decisions, self.normalizer).data.astype(np.float16)
        labels, along_plan = empty_labels(volume, self.decisions)
        regions = self.decisions.get("regions", False)
        found = labeler(along_plan, self.decisions["values"], layout.shape, regions=regions)

        def take(block: Tensor, corner: Shape3) -> None:
            found.take(block, corner)
            if doubt is not None:
                doubt.take(block, corner)

        network = self.mirroring() if mirror else self.logits
        unseen = None
        if self.locator is not None:
            coarse = partial(self._answer, self.locator.model.to(self.fabric.device))
            unseen = self.locator.unseen(coarse, image, layout, self.fabric.device)
        slide(network, image, layout, take, device=self.fabric.device, unseen=unseen)
        if self.largest:
            values = dict(zip(self.decisions["labels"], self.decisions["values"], strict=True))
            keep_largest(labels, [values[name] for name in self.largest])
        return labels

    def mirroring(self) -> Network:
        """Return what answers by the mean over the plan's mirror images.

        Raises:
            UsageError: it has none.
        """
        axes = self.decisions["augmentation"]["flips"]
        if not axes:
            raise UsageError(
                "the run mirrored no image in training, since left and right are told apart in "
                "it; leave mirror out"
            )
        return mirrored(self.logits, axes, regions=self.decisions.get("regions", False))

    def logits(self, patch: Tensor) -> Tensor:
        """Return logits of a batch of patches."""
        return self._answer(self.model, innermost(patch) if self.near else patch)

    def _answer(self, model: nn.Module, patch: Tensor) -> Tensor:
        with torch.inference_mode(), self.fabric.autocast():
            answer: Tensor = model(patch.to(self.fabric.device))
        return answer


def whole_model(decisions: Json) -> nn.Module:
    """Return the model that answers for a run, for weights to be loaded into."""
    count = decisions.get("folds", 1)
    members = [new_model(decisions, 0) for _ in range(count)]
    if count == 1:
        return members[0]
    return Ensemble(members, regions=decisions.get("regions", False))


def new_model(decisions: Json, seed: int) -> nn.Module:
    """Return a model with weights drawn from `seed`."""
    network = decisions["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(
            network["name"],
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=answers(decisions),
            **network["options"],
        )
    if decisions.get("regions", False):
        begin_at_shares(model, decisions)
    if network["weights"] == "imagenet":
        load_pretrained(model.encoder, "efficientnet_lite0", in_channels=network["in_channels"])  # type: ignore[arg-type]  # a light U-Net's
    return model
