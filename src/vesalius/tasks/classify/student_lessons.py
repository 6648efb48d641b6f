# SPDX-License-Identifier: Apache-2.0
"""What a student sees at each step: training cases and those without a label, moved and blended.

Each lesson is a pure function of the seed and its number, so that the teacher is asked about the
very images that the student is shown (Beyer et al.: Knowledge distillation: A good teacher is
patient and consistent, CVPR 2022), and none of them is kept. Where every case is a single view,
those of every other lesson are blended with one another (Zhang et al.: mixup, ICLR 2018): what lies
between two cases has no label, but the teacher has an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import Image, make_batch
from vesalius.tasks.classify.network import draw_images
from vesalius.tasks.classify.store import Store
from vesalius.tasks.targets import Target
from vesalius.training.augment import Augmentation, augment
from vesalius.training.order import batch_positions, step_random
from vesalius.types import Array, Json


@dataclass(frozen=True, slots=True)
class Lessons:
    """The cases that a student learns from.

    Attributes:
        spec: of its network, in the plan.
        store: views of all cases.
        labelled: cases whose truth may be told.
        unlabeled: cases of which the teacher's answer is all that is known.
        target: of the truths.
        seed: of order, augmentation and blending.
        blends: whether every other lesson's cases are blended, see `single_views`.
    """

    spec: Json
    store: Store
    labelled: Sequence[Case]
    unlabeled: Sequence[Case]
    target: Target
    seed: int
    blends: bool

    @property
    def epoch(self) -> int:
        """Return how many lessons show about all cases once."""
        cases = len(self.labelled) + len(self.unlabeled)
        return max(1, round(cases / int(self.spec["batch"])))

    def images(self, number: int) -> list[list[Image]]:
        """Return the images of each case of a lesson, their views as float32."""
        rng = step_random(self.seed, number)
        cases = [self._case(place) for place in self._places(number)]
        drawn = [draw_images(self.store.images(case), self.spec["views"], rng) for case in cases]
        settings = Augmentation.from_json(self.spec["augmentation"])
        moved, _ = augment(make_batch(drawn).views, settings, rng)
        views = moved.numpy()
        if self._is_blended(number):
            share = rng.random((len(views), *[1] * (views.ndim - 1))).astype(np.float32)
            views = share * views + (1 - share) * np.roll(views, 1, axis=0)
        return _laid_out(drawn, views)

    def truths(self, number: int) -> tuple[Array, Array]:
        """Return which of a lesson's cases have a truth to be told, and these truths, encoded.

        Returns:
            Boolean `(N,)`, none of a lesson of blended cases, and what `Target.encode` gives.
        """
        places = self._places(number)
        told = np.array([p < len(self.labelled) for p in places]) & (not self._is_blended(number))
        named = [self.labelled[p].truth for p, known in zip(places, told, strict=True) if known]
        return told, self.target.encode(named)

    def _is_blended(self, number: int) -> bool:
        return self.blends and number % 2 == 1

    def _places(self, number: int) -> list[int]:
        cases = len(self.labelled) + len(self.unlabeled)
        return batch_positions(cases, self.spec["batch"], number, self.seed)

    def _case(self, place: int) -> Case:
        known = len(self.labelled)
        return self.labelled[place] if place < known else self.unlabeled[place - known]


def single_views(store: Store, cases: Sequence[Case]) -> bool:
    """Return whether each case is one image with one view."""
    counts = [
        [store.places[r["key"]][1] for r in c.rows if r["key"] in store.places] for c in cases
    ]
    return all(count == [1] for count in counts)


def _laid_out(drawn: Sequence[Sequence[Image]], views: Array) -> list[list[Image]]:
    """Return the same images with other views."""
    out, place = [], 0
    for case in drawn:
        images = []
        for image in case:
            count = len(image.views)
            images.append(Image(views[place : place + count], image.facts))
            place += count
        out.append(images)
    return out
