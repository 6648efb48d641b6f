# SPDX-License-Identifier: Apache-2.0
"""Images of the cohort that a segmenter was trained on: they prove its export and calibrate it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vesalius.errors import CohortError, DataError
from vesalius.tasks.cases import Case, segmentation_cases
from vesalius.tasks.segment.grid import mask_codes, to_plan
from vesalius.tasks.segment.slide import lay_out, quarter_of, slide
from vesalius.tasks.segment.structures import Structures
from vesalius.types import Array, Shape3
from vesalius.volume import Volume

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.run import Run

_EACH = 4  # patches of one image
_MOST_BYTES = 512 << 20  # of all patches


class Samples:
    """Training and validation images of a run, read one at a time.

    Args:
        run: a segmenter's.
        cohort: that it was trained on.

    Raises:
        CohortError: the cohort holds none of its images.
    """

    def __init__(self, run: Run, cohort: Cohort) -> None:
        where = run.plan["cohort"]["where"]
        self.run = run
        self.cohort = cohort.filter(where) if where else cohort
        cases, subsets = segmentation_cases(self.cohort), run.subsets()
        self._training = _shuffled(cases.subset(subsets, "train"))
        self._validation = _shuffled(cases.subset(subsets, "val"))
        if not self._training or not self._validation:
            raise CohortError(
                "the cohort holds no training or no validation image of the run; give the one "
                "that it was trained on"
            )

    def patches(self, count: int) -> list[Array]:
        """Return up to `count` windows `(1, C, ...)` float32 of training images, as in use.

        Fewer where they would take more than 512 MiB.

        Raises:
            CohortError: no image can be read.
        """
        decisions, normalizer = self.run.decisions, self.run.normalizer()
        each = 4 * decisions["network"]["in_channels"] * math.prod(decisions["patch"])
        count = max(1, min(count, _MOST_BYTES // each))
        found: list[Array] = []
        for case in self._training:
            try:
                volume = self.cohort.read(case.rows[0])
                image = to_plan(volume, decisions, normalizer).data.astype(np.float16)
            except DataError:  # named in the run's audit
                continue
            i, j, k = image.shape[1:]
            memory = quarter_of(torch.device("cpu"))
            layout = lay_out((i, j, k), decisions, classes=1, memory=memory)
            kept = _Reservoir(min(_EACH, count - len(found)))
            slide(kept, image, layout, _forget)
            found += kept.patches
            if len(found) == count:
                break
        if not found:
            raise CohortError("no training image of the run can be read; run `vesalius check`")
        return found

    def validation(self, most: int) -> Iterator[tuple[Volume, Array]]:
        """Yield up to `most` validation images with their truth's codes, see `structures`."""
        structures = Structures.of(self.run.decisions)
        left = most
        for case in self._validation:
            if not left:
                return
            try:
                volume = self.cohort.read(case.rows[0])
                codes = mask_codes(self.cohort.read_mask(case.rows[0]), volume, structures)
            except DataError:  # named when the run was scored
                continue
            left -= 1
            yield volume, codes


class _Reservoir:
    """In the place of a network: keeps some of its inputs, each as likely (Vitter, 1985)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.patches: list[Array] = []
        self.seen = 0
        self.rng = np.random.default_rng(0)

    def __call__(self, batch: Tensor) -> Tensor:
        for number in range(len(batch)):
            patch = batch[number : number + 1]
            self.seen += 1
            place = len(self.patches)
            if place < self.most:
                self.patches.append(patch.numpy().copy())
            elif (place := int(self.rng.integers(self.seen))) < self.most:
                self.patches[place] = patch.numpy().copy()
        return torch.zeros_like(batch[:, :1])


def _forget(block: Tensor, corner: Shape3) -> None:
    """Take finished logits and do nothing with them."""


def _shuffled(cases: Sequence[Case]) -> list[Case]:
    order = np.random.default_rng(0).permutation(len(cases))
    return [cases[place] for place in order]
