# SPDX-License-Identifier: Apache-2.0
"""Boxes and counts of new images from a run: the one way, used everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import RunError
from vesalius.files import read_json
from vesalius.networks.center import Answer, CenterNet
from vesalius.normalization import Normalizer
from vesalius.tasks.detect.boxes import Boxes
from vesalius.tasks.detect.counting import Count, Evidence, Rule
from vesalius.tasks.detect.decode import peaks, suppress, within
from vesalius.tasks.detect.images import to_plan
from vesalius.tasks.detect.plan import MULTIPLE
from vesalius.tasks.run import Run
from vesalius.training import device
from vesalius.types import Array, Json
from vesalius.volume import Volume

COUNTING = "counting.json"
TILE = 1024  # pixels of the network's input that are answered at once …
MARGIN = 128  # … with this much around them, from which no box is taken


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """What a run finds in one image.

    Attributes:
        boxes: in pixels of the image, best first; scores are probabilities. There are as many of
            a class as its count says, or fewer where the network has no more candidates.
        counts: one a class, in the plan's order.
    """

    boxes: Boxes
    counts: tuple[Count, ...]


class Detector:
    """A trained model with its normalizer and rules of counting, in evaluation mode."""

    def __init__(
        self, model: nn.Module, decisions: Json, normalizer: Normalizer, rules: Sequence[Rule] = ()
    ) -> None:
        self.decisions = decisions
        self.normalizer = normalizer
        self.rules = tuple(rules)
        self.classes: list[str] = decisions["classes"]
        self.fabric = device.start(decisions["precision"])
        self.model = model.to(self.fabric.device).eval()

    @classmethod
    def load(cls, run: Run) -> Self:
        """Load a run's weights and rules; nothing is unpickled.

        Raises:
            RunError: the run is of another task, or incomplete.
        """
        if run.task != "detect":
            raise RunError(f"the run must be of the task 'detect', got '{run.task}'")
        model = new_model(run.decisions, None)
        model.load_state_dict(run.weights())
        try:
            record = read_json(run.path / COUNTING)
        except (OSError, ValueError) as error:
            raise RunError(
                f"the run '{run.path}' lacks a readable {COUNTING}; finish its training with the "
                "same command"
            ) from error
        rules = [Rule.from_json(record["rules"][name]) for name in run.decisions["classes"]]
        return cls(model, run.decisions, run.normalizer(), rules)

    def detect(self, volume: Volume) -> Detected:
        """Return boxes and counts of one 2D image.

        Raises:
            DataError: the image has slices, or cannot be normalized.
        """
        return self.judge(self.evidence(volume))

    def evidence(self, volume: Volume) -> Evidence:
        """Return every candidate in pixels of the image, with the network's own scores.

        Raises:
            DataError: the image has slices, or cannot be normalized.
        """
        image, factors = to_plan(volume, self.decisions, self.normalizer)
        found = self.evidence_of(image)
        return Evidence(found.candidates.scaled((1 / factors).tolist()), found.density)

    def evidence_of(self, image: Array) -> Evidence:
        """Return every candidate of a prepared image `(C, i, j)`, in its pixels."""
        return find_evidence(self.maps, image, self.decisions)

    def judge(self, evidence: Evidence) -> Detected:
        """Return how many objects there are, and as many of the best candidates."""
        candidates, counts = evidence.candidates, []
        kept = np.zeros(len(candidates), bool)
        probabilities = np.zeros(len(candidates))
        for label, (name, rule) in enumerate(zip(self.classes, self.rules, strict=True)):
            own = np.flatnonzero(candidates.labels == label)  # best first
            scores = candidates.scores[own]
            counts.append(rule.count(name, scores, float(evidence.density[label])))
            kept[own[: counts[-1].count]] = True
            probabilities[own] = rule.probabilities(scores)
        boxes = Boxes(candidates.corners, candidates.labels, probabilities).chosen(kept)
        return Detected(boxes, tuple(counts))

    def maps(self, images: Tensor) -> Tensor:
        """Return the network's maps of a batch `(N, C, i, j)`."""
        with torch.inference_mode(), self.fabric.autocast():
            answer: Tensor = self.model(images.to(self.fabric.device))
        return answer.float()


def new_model(decisions: Json, seed: int | None) -> nn.Module:
    """Return the plan's network to start from, drawn from `seed`; None: weights will be loaded."""
    network = decisions["network"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        return CenterNet(
            spatial_dims=network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=len(decisions["classes"]),
            pretrained=network["pretrained"] and seed is not None,
            scale=network["scale"],
            **network["options"],
        )


def find_evidence(maps: Callable[[Tensor], Tensor], image: Array, decisions: Json) -> Evidence:
    """Return what the maps say of a prepared image `(C, i, j)`: boxes in its pixels, best first.

    A large image is answered tile by tile, with a margin around each; where the plan says so, the
    maps are the mean over the mirrored images.
    """
    stride = decisions["network"]["options"]["stride"]
    shape = (image.shape[1], image.shape[2])
    size = [-(-side // MULTIPLE) * MULTIPLE for side in shape]
    whole = torch.zeros(len(image), *size)
    whole[:, : shape[0], : shape[1]] = torch.from_numpy(np.asarray(image, np.float32))
    parts: list[Tensor] = []
    for i in range(0, size[0], TILE):
        row = [
            _tile(maps, whole, (i, j), decisions["mirrored_answers"], stride)
            for j in range(0, size[1], TILE)
        ]
        parts.append(torch.cat(row, dim=2))
    cells = [-(-side // stride) for side in shape]
    joined = torch.cat(parts, dim=1)[None, :, : cells[0], : cells[1]]
    heat, density, extent, offset = Answer.of(joined)
    found = peaks(heat[0], extent[0], offset[0], stride)
    candidates = suppress(within(found, shape), sigma=decisions["overlap_sigma"])
    return Evidence(candidates, density[0].sum((1, 2)).double().numpy())


def _tile(
    maps: Callable[[Tensor], Tensor],
    image: Tensor,
    start: tuple[int, int],
    mirrored: Sequence[int],
    stride: int,
) -> Tensor:
    """Return the answer for one tile, on the coarse grid: probabilities, densities, shapes."""
    first = [max(0, begin - MARGIN) for begin in start]
    last = [
        min(side, begin + TILE + MARGIN) for side, begin in zip(image.shape[1:], start, strict=True)
    ]
    around = image[:, first[0] : last[0], first[1] : last[1]]
    answer = _mirrored_mean(maps, around[None], mirrored)[0]
    cut = [
        slice((begin - a) // stride, (min(side, begin + TILE) - a) // stride)
        for side, begin, a in zip(image.shape[1:], start, first, strict=True)
    ]
    return answer[:, cut[0], cut[1]]


def _mirrored_mean(
    maps: Callable[[Tensor], Tensor], images: Tensor, mirrored: Sequence[int]
) -> Tensor:
    """Return the mean answer over mirrored images, with heat and density as numbers, not logits."""
    sides = [axis + 2 for axis in mirrored]
    ways = [w for count in range(len(sides) + 1) for w in itertools.combinations(sides, count)]
    answers = []
    for axes in ways:
        answer = Answer.of(maps(torch.flip(images, axes)).cpu())
        offset = answer.offset.clone()
        for axis in axes:
            offset[:, axis - 2] *= -1
        heat, density = torch.sigmoid(answer.heat), functional.softplus(answer.density)
        answers.append(torch.flip(torch.cat([heat, density, answer.size, offset], dim=1), axes))
    return torch.stack(answers).mean(dim=0)
