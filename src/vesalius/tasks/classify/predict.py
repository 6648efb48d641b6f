# SPDX-License-Identifier: Apache-2.0
"""Answers for new cases from a run: the one way, used by evaluation, predict and serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from vesalius.errors import DataError, RunError
from vesalius.files import read_json
from vesalius.geometry import slice_plane
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.classify.batch import Image, fact_codes
from vesalius.tasks.classify.embeddings import embedded
from vesalius.tasks.classify.ensemble import mix
from vesalius.tasks.classify.heads import Embedded
from vesalius.tasks.classify.members import Member, NetworkMember, load_members
from vesalius.tasks.classify.trust import Trust
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.run import Run
from vesalius.tasks.targets import Target
from vesalius.tasks.views import make_views
from vesalius.training import device
from vesalius.types import Array, Json
from vesalius.volume import Volume

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_VIEWS_AT_ONCE = 64
TRUST = "trust.json"
TRUST_ARRAYS = "trust.safetensors"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a classifier says of one case.

    Attributes:
        probabilities: calibrated, as `Target.probabilities`; None where it cannot answer.
        reason: of a failure, or of images that were left out.
        label_set: the labels that hold the truth at the promised rate; empty without one.
        interval: of a regression, at the promised rate; infinite where none can be promised.
        outlier: how unlike the training cases this one is, in multiples of what is refused.
        abstained: why no answer should be relied on, or ``.
        called: the class by the run's operating point, where it has one, or ``.
    """

    probabilities: Array | None
    reason: str = ""
    label_set: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    outlier: float | None = None
    abstained: str = ""
    called: str = ""


@dataclass(frozen=True, slots=True)
class Mixture:
    """The members of a run and how much each weighs."""

    members: Sequence[Member]
    encoders: Mapping[int, FrozenEncoder]
    weights: Array

    def answer(self, cases: Sequence[Sequence[Image]]) -> tuple[Array, Array]:
        """Return raw answers `(n, ...)` and one embedding a case `(n, F)`."""
        found = {number: embed(encoder, cases) for number, encoder in self.encoders.items()}
        pooled = means(found[min(found)]) if found else None
        tables = []
        for member in self.members:
            if pooled is None and isinstance(member, NetworkMember):
                table, pooled = member.answer_and_embed(cases)
            else:
                table = member.answer(cases, found)
            tables.append(table)
        return mix(tables, self.weights), np.asarray(pooled)

    def embeddings(self, cases: Sequence[Sequence[Image]]) -> Array:
        """Return one embedding a case `(n, F)`, by which outliers are told."""
        for number in sorted(self.encoders)[:1]:
            return means(embed(self.encoders[number], cases))
        network = next(m for m in self.members if isinstance(m, NetworkMember))
        return network.embeddings(cases)


def means(cases: Embedded) -> Array:
    """Return the mean `(n, F)` of the embeddings of each case's images."""
    rows = torch.split(cases.items, list(cases.lengths))
    return torch.stack([row.mean(0) for row in rows]).numpy()


def embed(encoder: FrozenEncoder, cases: Sequence[Sequence[Image]]) -> Embedded:
    """Return the cases as a frozen encoder embeds them."""
    vectors = iter(encoder.images([image for case in cases for image in case]))
    return embedded([[(next(vectors), image.facts) for image in case] for case in cases])


class Classifier:
    """A trained mixture with its normalizer, in evaluation mode, 32 bit."""

    def __init__(
        self, mixture: Mixture, decisions: Json, normalizer: Normalizer, trust: Trust
    ) -> None:
        self.mixture = mixture
        self.decisions = decisions
        self.normalizer = normalizer
        self.trust = trust
        self.target = Target.from_json(decisions["target"])
        self.device = device.place()
        for member in mixture.members:
            if isinstance(member, NetworkMember):
                member.module.to(self.device).eval()

    @classmethod
    def load(cls, run: Run) -> Self:
        """Load a run's weights; nothing is unpickled.

        Raises:
            RunError: the run is of another task, or incomplete.
        """
        from vesalius.training.checkpoint import load_tensors

        if run.task != "classify":
            raise RunError(f"the run must be of the task 'classify', got '{run.task}'")
        held = run.plan["measured"].get("members")
        if not held:
            raise RunError(f"the run '{run.path}' is not finished; finish its training first")
        target = Target.from_json(run.decisions["target"])
        members, encoders = load_members(run.weights(), run.path, run.decisions, held, target)
        weights = np.array([member["weight"] for member in held])
        arrays: dict[str, Array] = {}
        if (run.path / TRUST_ARRAYS).exists():
            tensors, _ = load_tensors(run.path / TRUST_ARRAYS)
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        trust = Trust.from_json(read_json(run.path / TRUST), arrays)
        mixture = Mixture(members, encoders, weights)
        return cls(mixture, run.decisions, run.normalizer(), trust)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return list(self.target.classes)

    def image(self, volume: Volume, facts: Mapping[str, Any] | None = None) -> Image:
        """Return one image as the members take it.

        Args:
            volume: the image.
            facts: what is known of it (a row of a cohort); by default what it says itself.

        Raises:
            DataError: it cannot be normalized.
        """
        known = volume_facts(volume) if facts is None else facts
        views = make_views(volume, self.decisions, self.normalizer)
        return Image(views, fact_codes(known, self.decisions["facts"]))

    def probabilities(self, cases: Sequence[Sequence[Image]]) -> Array:
        """Return calibrated answers `(cases, ...)`, in the form of `Target.probabilities`."""
        table, _ = self.mixture.answer(cases)
        return self.trust.calibrate(table, self.target)

    def predict(self, images: Iterable[Volume]) -> Array:
        """Return the answer of one case, in whatever order its images come.

        Raises:
            DataError: no image, or one that cannot be normalized.
        """
        held = [self.image(volume) for volume in images]
        if not held:
            raise DataError("a case needs at least one image, got none")
        return np.asarray(self.probabilities([held])[0])

    def answers(
        self, cases: Sequence[Sequence[Image]], reasons: Sequence[str] | None = None
    ) -> list[Answer]:
        """Return what is said of each case, none of them empty."""
        if not cases:
            return []
        raw, embeddings = self.mixture.answer(cases)
        return self.trusted(raw, embeddings, reasons or [""] * len(cases))

    def trusted(self, raw: Array, embeddings: Array, reasons: Sequence[str]) -> list[Answer]:
        """Return answers from what the mixture gave: calibrated, with sets and refusals."""
        trust = self.trust
        table = trust.calibrate(raw, self.target)
        sets = trust.label_sets(raw, table)
        bounds = None if trust.intervals is None else trust.intervals.apply(table[:, 0])
        strange = None
        if trust.outliers is not None and trust.outliers.threshold is not None:
            strange = trust.outliers.score(embeddings) / trust.outliers.threshold
        out = []
        for row, reason in enumerate(reasons):
            label_set = () if sets is None else tuple(np.array(self.classes)[sets[row]].tolist())
            outlier = None if strange is None else float(strange[row])
            abstained = ""
            if outlier is not None and outlier > 1:
                abstained = f"unlike the training cases ({outlier:.1f} times what is accepted)"
            interval = None if bounds is None else (float(bounds[row, 0]), float(bounds[row, 1]))
            called = ""
            if trust.operating is not None and not abstained:
                called = self.classes[int(table[row, 1] >= trust.operating.threshold)]
            out.append(Answer(table[row], reason, label_set, interval, outlier, abstained, called))
        return out

    def answer(self, cohort: Cohort, cases: Sequence[Case]) -> Iterator[Answer]:
        """Yield an answer for each case, reading from the cohort a few cases at a time."""
        waiting: list[tuple[list[Image], str]] = []
        for case in cases:
            waiting.append(self._read(cohort, case))
            if sum(len(i.views) for images, _ in waiting for i in images) >= _VIEWS_AT_ONCE:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _read(self, cohort: Cohort, case: Case) -> tuple[list[Image], str]:
        """Return the images that can be read, and why others cannot."""
        images, reasons = [], []
        for row in case.rows:
            try:
                images.append(self.image(cohort.read(row), row))
            except DataError as error:
                reasons.append(f"image {row['key']}: {getattr(error, 'reason', error)}")
        return images, "; ".join(reasons)

    def _flush(self, waiting: list[tuple[list[Image], str]]) -> Iterator[Answer]:
        served = [(images, reason) for images, reason in waiting if images]
        found = iter(self.answers([i for i, _ in served], [r for _, r in served]))
        for images, reason in waiting:
            yield next(found) if images else Answer(None, reason)


def volume_facts(volume: Volume) -> Json:
    """Return what an image says of itself, as a row of a cohort does."""
    maker = [str(volume.source.metadata.get(name, "")) for name in ("manufacturer", "model")]
    return {
        "modality": volume.modality,
        "plane": slice_plane(volume.affine) if volume.calibrated else "",
        "scanner": "|".join(filter(None, maker)),
    }
