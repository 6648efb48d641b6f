# SPDX-License-Identifier: Apache-2.0
"""What belongs together: by label, by study, by words; and how batches of it are drawn.

Images of one patient are no pair of labels: a network would learn the patient. Half of the batches
hold images of one modality and body part alone, whose strangers are hard to tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vesalius.tasks.cases import Case
from vesalius.types import Array, Json

SAME_LABEL, CAPTIONS, SAME_STUDY = "same-label", "captions", "same-study"
PAIRS = (SAME_LABEL, CAPTIONS, SAME_STUDY)
_UNKNOWN = -1
_ALIKE = 0.5  # chance of a batch to come from one modality and body part
_SETTING = ("modality", "body_part")


@dataclass(frozen=True, slots=True)
class Relation:
    """One way to belong together.

    Attributes:
        codes: `(n,)` of what an image shares with its partners; -1 where it is not known.
        within: partners may be of one patient, as views of one study are.
    """

    codes: Array
    within: bool

    def matrices(self, chosen: Array, patients: Array) -> tuple[Tensor, Tensor]:
        """Return `positive` and `counted` of a batch, `(N, N)`, see `training.contrastive`."""
        codes = self.codes[chosen]
        alike = (codes[:, None] == codes[None]) & (codes[:, None] != _UNKNOWN)
        known = (codes[:, None] != _UNKNOWN) & (codes[None] != _UNKNOWN)
        own = patients[chosen][:, None] == patients[chosen][None]
        other = ~np.eye(len(chosen), dtype=bool) if self.within else ~own
        return torch.from_numpy((alike & other).astype(np.float32)), torch.from_numpy(known & other)


@dataclass(frozen=True, slots=True)
class Pairs:
    """What some images are to be near to.

    Attributes:
        relations: by label and by study.
        patients: `(n,)` codes; images of one code are of one patient, or nearly equal.
        settings: `(n,)` codes of modality and body part.
        words: of each image, `` for none; empty where words are not learned from.
    """

    relations: tuple[Relation, ...]
    patients: Array
    settings: Array
    words: tuple[str, ...] = ()

    @property
    def weights(self) -> Array:
        """Return the chance of each image to be drawn: that of a patient grows with its root."""
        _, place, counts = np.unique(self.patients, return_inverse=True, return_counts=True)
        weights = 1 / np.sqrt(counts[place])
        if self.words:
            weights = weights * np.array([1.0 if text else 0.25 for text in self.words])
        return np.asarray(weights / weights.sum())

    def some(self, places: Array) -> Pairs:
        """Return the same of some images."""
        relations = tuple(Relation(one.codes[places], one.within) for one in self.relations)
        words = tuple(self.words[place] for place in places) if self.words else ()
        return Pairs(relations, self.patients[places], self.settings[places], words)

    def draw(self, rng: np.random.Generator, batch: int) -> Array:
        """Return the places of a batch: anchors, and for each a partner where it has one."""
        weights = self.weights
        pool = np.arange(len(weights))
        if rng.random() < _ALIKE:
            setting = self.settings[rng.choice(len(weights), p=weights)]
            near = np.flatnonzero(self.settings == setting)
            pool = near if len(near) >= batch else pool
        share = weights[pool] / weights[pool].sum()
        size = min(batch, len(pool))
        anchors = rng.choice(pool, size, replace=False, p=share)
        if not self.relations or size < batch // 2:
            return np.asarray(anchors)
        anchors = anchors[: max(1, size // 2)]
        relation = self.relations[rng.integers(len(self.relations))]
        partners = [self._partner(place, relation, pool, rng) for place in anchors]
        return np.unique([*anchors, *(p for p in partners if p is not None)])

    def _partner(
        self, place: int, relation: Relation, pool: Array, rng: np.random.Generator
    ) -> int | None:
        code = relation.codes[place]
        alike = pool[(relation.codes[pool] == code) & (pool != place)]
        if not relation.within:
            alike = alike[self.patients[alike] != self.patients[place]]
        return int(rng.choice(alike)) if code != _UNKNOWN and len(alike) else None


def make_pairs(
    cases: Sequence[Case],
    groups: Mapping[str, int],
    kinds: Sequence[str],
    columns: Sequence[str],
    texts: Mapping[str, str] | None = None,
) -> Pairs:
    """Return the pairs of some images.

    Args:
        cases: one image each.
        groups: case key -> patient or near-duplicates, see `tasks.cases.case_groups`.
        kinds: of `PAIRS`.
        columns: of the labels that are shared.
        texts: image key -> words; default those of the rows.
    """
    rows: list[Json] = [case.rows[0] for case in cases]
    relations = []
    if SAME_LABEL in kinds:
        relations += [Relation(_codes([row[name] for row in rows]), False) for name in columns]
    if SAME_STUDY in kinds:
        relations.append(Relation(_codes([row["study"] for row in rows]), True))
    words: tuple[str, ...] = ()
    if CAPTIONS in kinds:
        held = texts or {}
        words = tuple(held.get(row["key"], (row["words"] or "").strip()) for row in rows)
    settings = _codes(["|".join(str(row.get(name) or "") for name in _SETTING) for row in rows])
    return Pairs(tuple(relations), np.array([groups[case.key] for case in cases]), settings, words)


def _codes(values: Sequence[Any]) -> Array:
    """Return a number for each distinct value, -1 for None and empty text."""
    known: dict[str, int] = {}
    return np.array([
        _UNKNOWN if value in (None, "") else known.setdefault(str(value), len(known))
        for value in values
    ])  # fmt: skip
