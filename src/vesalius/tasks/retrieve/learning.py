# SPDX-License-Identifier: Apache-2.0
"""What training towers and twins have in common: the loss of a batch of vectors, and the judge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vesalius.errors import UsageError, did_you_mean
from vesalius.tasks.retrieve import judge
from vesalius.tasks.retrieve.pairs import Pairs
from vesalius.training.contrastive import contrastive, pairs_of_words, supcon, triplet
from vesalius.types import Array, Json

_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
# name in a plan -> the loss, and which setting of the objective it takes
_LOSSES: dict[str, tuple[_Loss, str]] = {
    "supcon": (supcon, "temperature"),
    "triplet": (triplet, "margin"),
    "contrastive": (contrastive, "margin"),
}


def image_loss(vectors: Tensor, pairs: Pairs, chosen: Array, objective: Json) -> Tensor:
    """Return the mean loss over the relations of images, of a batch of vectors of length one.

    Args:
        vectors: `(N, d)`.
        pairs: of all images.
        chosen: `(N,)`, the places of the batch among them.
        objective: of the plan: `loss`, `temperature`, `margin`.
    """
    losses = []
    for relation in pairs.relations:
        positive, counted = relation.matrices(chosen, pairs.patients)
        positive, counted = positive.to(vectors.device), counted.to(vectors.device)
        found = _LOSSES.get(objective["loss"])
        if found is None:
            raise UsageError(
                f"objective.loss must be one of {', '.join(_LOSSES)}, got '{objective['loss']}'."
                f"{did_you_mean(objective['loss'], _LOSSES)}"
            )
        loss, setting = found
        losses.append(loss(vectors, vectors, positive, counted, objective[setting]))
    return torch.stack(losses).mean()


def words_loss(
    vectors: Tensor, texts: Tensor, pairs: Pairs, chosen: Array, temperature: float
) -> Tensor:
    """Return the loss between images that bear words and these words; equal ones are one.

    Args:
        vectors: `(N, d)` of length one, of images.
        texts: `(N, d)` of length one, of the words of each.
        pairs, chosen: as of `image_loss`.
        temperature: by which cosines are divided.
    """
    words = [pairs.words[place] for place in chosen]
    bearing = torch.tensor([bool(text) for text in words])
    alike = np.array([[float(a == b) for b in words] for a in words], np.float32)
    matrix = torch.from_numpy(alike)[bearing][:, bearing]
    return pairs_of_words(vectors[bearing], texts[bearing], matrix, temperature)


def image_scores(vectors: Array, queries: Array, pairs: Pairs) -> list[float]:
    """Return for each relation the mean precision of the nearest, of some queries among all."""
    found = []
    for relation in pairs.relations:
        patients = np.arange(len(vectors)) if relation.within else pairs.patients
        rankings = judge.by_image(vectors, queries, patients, judge.shared(relation.codes, queries))
        found.append(judge.mean(rankings, 0))
    return found


def words_score(images: Array, texts: Array, captions: list[str], asked: list[str]) -> float:
    """Return the mean recall of images by their words, see `judge.by_words`."""
    return judge.mean(judge.by_words(images, texts, captions, asked), 1)
