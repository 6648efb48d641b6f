# SPDX-License-Identifier: Apache-2.0
"""A retrieval run on disk: `model.safetensors` of images and words, `words.json` of the terms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from vesalius.errors import RunError
from vesalius.files import read_json, write_json
from vesalius.networks.text import TextFeatures
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.retrieve.model import Head, ImageModel
from vesalius.tasks.retrieve.ridge import Ridge
from vesalius.tasks.retrieve.towers import (
    Blend,
    Projection,
    Tower,
    WordsTowers,
    width_of_text,
)
from vesalius.tasks.retrieve.twin import TwinEncoder
from vesalius.tasks.run import Run
from vesalius.training import checkpoint
from vesalius.types import Json

_WEIGHTS, _TERMS = "model.safetensors", "words.json"
_IMAGE, _WORDS = "image.", "words."
_RARITY, _DIRECTIONS = "terms.rarity", "terms.directions"


def assemble(
    frozen: FrozenEncoder,
    heads: Sequence[Head],
    shares: Sequence[float],
    twin: tuple[nn.Module, Head] | None,
    share: float,
) -> ImageModel:
    """Return the model of images: heads on the frozen encoder, and a twin beside them.

    Args:
        frozen: the encoder.
        heads: on it.
        shares: weight of each among them.
        twin: encoder and head; None for none.
        share: weight of the twin, 0 to 1.
    """
    width = frozen.features
    every = list(heads)
    spans = [(0, width)] * len(every)
    weights = [(1 - share) * one for one in shares]
    encoders: list[nn.Module] = [frozen]
    if twin is not None:
        encoders.append(twin[0])
        every.append(twin[1])
        spans.append((width, width + int(twin[0].features)))  # type: ignore[arg-type]  # an encoder
        weights.append(share)
    return ImageModel(encoders, Blend(every, spans, weights)).eval()


def shares_of(decisions: Json, blocks: Sequence[int]) -> list[float]:
    """Return the weights of the heads on the frozen encoder: of the ridge, then of each tower."""
    count = int(decisions["tower"]["count"])
    ridge = float(decisions["ridge"]["share"]) if blocks else 0.0
    return [*([ridge] if blocks else []), *[(1 - ridge) / count] * count]


def save_parts(run: Run, image: ImageModel, words: WordsTowers | None) -> None:
    """Write the model of images and that of words into the run's folder."""
    tensors = {_IMAGE + name: value for name, value in image.state_dict().items()}
    if words is not None:
        tensors |= {_WORDS + name: value for name, value in words.state_dict().items()}
        tensors[_RARITY] = torch.from_numpy(words.texts.rarity)
        tensors[_DIRECTIONS] = torch.from_numpy(words.texts.directions)
        write_json(run.path / _TERMS, {"terms": list(words.texts.terms)})
    checkpoint.save_tensors(run.path / _WEIGHTS, tensors, {"plan": run.id})


def load_parts(path: Path) -> tuple[Run, ImageModel, WordsTowers | None]:
    """Return a finished run with its models of images and of words.

    Raises:
        RunError: no such run, one of another task, one that is not finished or damaged.
    """
    run = Run.load(path)
    if run.task != "retrieve":
        raise RunError(f"'{path}' is a run of {run.task}; give one of `vesalius train retrieve`")
    if not run.finished:
        raise RunError(f"the run '{path}' is not finished; resume it with: {run.plan['command']}")
    tensors = run.weights()
    decisions, measured = run.decisions, run.plan["measured"]
    frozen = FrozenEncoder(decisions["frozen"], run.path, pretrained=False)
    blocks, share = measured["ridge_blocks"], float(measured["twin_share"])
    shares = shares_of(decisions, blocks)
    heads = _heads(frozen.features, decisions["tower"], blocks, len(shares))
    twin = None
    if share:
        encoder = TwinEncoder(decisions["networks"][0], pretrained=False)
        twin = (encoder, Projection(encoder.features, decisions["networks"][0]["dimension"]))
    image = assemble(frozen, heads, shares, twin, share)
    words = None
    if decisions["words"]:
        terms = tuple(read_json(run.path / _TERMS)["terms"])
        texts = TextFeatures(terms, tensors[_RARITY].numpy(), tensors[_DIRECTIONS].numpy())
        width = width_of_text(texts, sentences=decisions["words"]["sentences"])
        of_words = _heads(width, decisions["words"], blocks, len(shares))
        words = words_beside(texts, of_words, shares, decisions, image)
    try:
        image.load_state_dict(_part(tensors, _IMAGE))
        if words is not None:
            words.load_state_dict(_part(tensors, _WORDS))
    except RuntimeError as error:
        raise RunError(
            f"the weights of '{path}' are not those of its plan; train it again"
        ) from error
    return run, image.eval(), None if words is None else words.eval()


def words_beside(
    texts: TextFeatures,
    heads: Sequence[Head],
    shares: Sequence[float],
    decisions: Json,
    image: ImageModel,
) -> WordsTowers:
    """Return the model of words that stands beside one of images."""
    rest = image.head.dimension - sum(head.dimension for head in heads)
    sentences = bool(decisions["words"]["sentences"])
    return WordsTowers(texts, heads, shares, sentences=sentences, rest=rest)


def _heads(features: int, spec: Json, blocks: Sequence[int], count: int) -> list[Head]:
    """Return heads with random weights: a ridge where it has blocks, and towers."""
    ridge: list[Head] = [Ridge(features, blocks)] if blocks else []
    return [*ridge, *(Tower(features, spec) for _ in range(count - len(ridge)))]


def _part(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}
