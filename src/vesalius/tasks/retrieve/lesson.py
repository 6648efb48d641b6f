# SPDX-License-Identifier: Apache-2.0
"""What a retrieval run learns from, and the heads on frozen features that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vesalius.errors import CohortError
from vesalius.networks.text import TextFeatures
from vesalius.tasks.retrieve.cases import label_column_of
from vesalius.tasks.retrieve.model import Head
from vesalius.tasks.retrieve.pairs import CAPTIONS, make_pairs
from vesalius.tasks.retrieve.prepared import Prepared
from vesalius.tasks.retrieve.ridge import (
    Ridge,
    attributes,
    directions_of,
    fit_images,
    fit_words,
    words_target,
)
from vesalius.tasks.retrieve.saved import shares_of
from vesalius.tasks.retrieve.tower_fit import Material, TwoTowers
from vesalius.tasks.retrieve.towers import Blend, text_features
from vesalius.types import Array, Json


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads on frozen features, of images and (as many, or none) of words, and their weights."""

    images: tuple[Head, ...]
    words: tuple[Head, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ridges:
    """Linear maps of images and of words; None where there is nothing to predict."""

    image: Ridge | None = None
    words: Ridge | None = None

    @property
    def blocks(self) -> list[int]:
        """Numbers of each block."""
        return [] if self.image is None else list(self.image.blocks)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a run learns from.

    Attributes:
        prepared: training and validation images.
        material: of these, in the same order.
        texts: fitted on the training words; None where no words are learned from.
        train, val: places.
    """

    prepared: Prepared
    material: Material
    texts: TextFeatures | None
    train: Array
    val: Array


def make_lesson(
    prepared: Prepared, groups: Mapping[str, int], train: set[str], decisions: Json
) -> Lesson:
    """Return what a run learns from.

    Args:
        prepared: images of training and validation.
        groups: case key -> patient or near-duplicates.
        train: keys of training images.
        decisions: of the plan.

    Raises:
        CohortError: no image of one of the two.
    """
    cases = prepared.cases
    columns = [label_column_of(name) for name in decisions["labels"]]
    pairs = make_pairs(cases, groups, decisions["pairs"], columns)
    own = np.array([case.key in train for case in cases])
    train_places, val_places = np.flatnonzero(own), np.flatnonzero(~own)
    if len(train_places) < 2 or not len(val_places):
        raise CohortError("no image of training or of validation can be used: see `vesalius check`")
    texts, words = None, None
    if CAPTIONS in decisions["pairs"]:
        learned = [pairs.words[place] for place in train_places]
        texts = TextFeatures.fit(learned, decisions["words"]["directions"])
        words = text_features(texts, pairs.words, sentences=decisions["words"]["sentences"])
    material = Material(torch.from_numpy(prepared.features), words, pairs)
    return Lesson(prepared, material, texts, train_places, val_places)


def fit_ridges(lesson: Lesson, places: Array, decisions: Json) -> Ridges:
    """Return the linear maps that some of the images give."""
    rows = [lesson.prepared.cases[place].rows[0] for place in places]
    material, settings = lesson.material.some(places), decisions["ridge"]
    attribute = attributes(rows, [label_column_of(name) for name in decisions["labels"]])
    weights = material.pairs.weights
    if material.words is None:
        if not decisions["labels"] or not attribute.shape[1]:
            return Ridges()
        return Ridges(fit_images(material.features, [attribute], weights, settings))
    bearing = np.array([bool(text) for text in material.pairs.words])
    directions = directions_of(material.words, bearing, settings["directions"])
    target = words_target(material.words, bearing, directions)
    parts = [part for part in (target, attribute) if part.shape[1]]
    return Ridges(
        fit_images(material.features, parts, weights, settings),
        fit_words(material.words, bearing, attribute, directions, weights, settings),
    )


def make_heads(ridges: Ridges, towers: Sequence[TwoTowers], decisions: Json) -> Heads:
    """Return the heads on frozen features, of images and of words."""
    each = {**decisions, "tower": {**decisions["tower"], "count": len(towers)}}
    images: list[Head] = [ridges.image] if ridges.image is not None else []
    words: list[Head] = [ridges.words] if ridges.words is not None else []
    images += [one.cpu().image for one in towers]
    words += [one.words for one in towers if one.words is not None]
    return Heads(tuple(images), tuple(words), tuple(shares_of(each, ridges.blocks)))


def vectors_of(heads: Heads, lesson: Lesson) -> Array:
    """Return `(n, d)` of length one of all images of a lesson."""
    features = lesson.material.features
    blend = Blend(heads.images, [(0, features.shape[1])] * len(heads.images), heads.shares).eval()
    with torch.inference_mode():
        return np.asarray(blend(features).numpy())
