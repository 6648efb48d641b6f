# SPDX-License-Identifier: Apache-2.0
"""Explanations: influence by leaving out, heat where the answer comes from, for every head."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vesalius.networks import IMAGE_NETWORKS, build
from vesalius.normalization import Normalizer
from vesalius.tasks.classify.batch import Image
from vesalius.tasks.classify.explain import _grad_cam, explain
from vesalius.tasks.classify.heads import fit_head, new_head
from vesalius.tasks.classify.members import HeadMember, NetworkMember
from vesalius.tasks.classify.model import new_model
from vesalius.tasks.classify.predict import Classifier, Mixture, embed
from vesalius.tasks.classify.trust import Trust
from vesalius.tasks.frozen import FrozenEncoder

sys.path.insert(0, str(Path(__file__).parent))
from sets import HEADS, TARGETS, images, name_of, sets, truths

KNOWN = {"modality": ["CT", "MR", "US"], "plane": ["axial", "coronal"], "scanner": []}
FROZEN = {
    "encoder": "efficientnet_lite0", "size": 64, "channels": 1, "volumes": False, "mirror": True,
}  # fmt: skip


def network_member(kind: str, dims: int = 2, pooling: str = "attention") -> NetworkMember:
    network = {
        "name": "resnet10", "spatial_dims": dims, "in_channels": 1, "weights": "random",
        "volumes": "", "options": {"stem": "small", "width": 8},
    }  # fmt: skip
    spec = {
        "network": network, "size": 16, "pooling": pooling, "facts": KNOWN, "dropout": 0.2,
        "mirror": False,
    }  # fmt: skip
    module = new_model(spec, TARGETS[kind].outputs, 0).eval()
    return NetworkMember("net", spec, module, TARGETS[kind])


def classifier(kind: str, members: list, weights: list[float], encoders: dict | None = None):
    decisions = {"target": TARGETS[kind].to_json(), "facts": KNOWN}
    mixture = Mixture(members, encoders or {}, np.array(weights))
    return Classifier(mixture, decisions, Normalizer(), Trust())


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    torch.manual_seed(0)
    return FrozenEncoder(FROZEN, Path(), pretrained=False)


def head_member(spec: dict, kind: str, encoder: FrozenEncoder) -> HeadMember:
    target, cases = TARGETS[kind], images([1, 2, 1, 2, 1, 2], 0, side=16)
    said = truths(sets([1] * 6, 1), target)
    head = new_head(spec, encoder.features, (3, 2, 0), target)
    fit_head(head, spec, embed(encoder, cases), said, target, None, 0)
    return HeadMember("head", 0, spec, head, target)


@pytest.mark.parametrize("kind", TARGETS)
def test_influence_is_what_the_answer_loses_without_an_image(kind: str) -> None:
    made = classifier(kind, [network_member(kind)], [1.0])
    (case,) = images([4], 3, side=16)
    found = explain(made, case)
    whole = made.probabilities([case])[0]
    column = int(whole.argmax())
    for place in range(4):
        rest = [image for n, image in enumerate(case) if n != place]
        lost = whole[column] - made.probabilities([rest])[0, column]
        assert found.influence[place] == pytest.approx(lost, abs=1e-6)
    assert found.influence.shape == (4,)
    assert np.abs(found.influence).max() > 1e-6
    assert np.isnan(explain(made, case[:1]).influence).tolist() == [True]


@pytest.mark.parametrize(("kind", "dims"), [*((kind, 2) for kind in TARGETS), ("binary", 3)])
def test_a_networks_heat_lies_on_the_grid_of_every_view(kind: str, dims: int) -> None:
    made = classifier(kind, [network_member(kind, dims)], [1.0])
    check(made, images([3, 1, 2], 4, dims=dims, side=16))


@pytest.mark.parametrize("kind", ["multiclass", "ordinal"])
@pytest.mark.parametrize("spec", HEADS, ids=name_of)
def test_a_heads_heat_lies_on_the_grid_of_every_view(
    spec: dict, kind: str, encoder: FrozenEncoder
) -> None:
    made = classifier(kind, [head_member(spec, kind, encoder)], [1.0], {0: encoder})
    check(made, images([2, 1, 1, 2, 1, 3, 1, 2], 5, side=16))


def check(made: Classifier, cases: list[list[Image]]) -> None:
    """Check heat of 0 to 1; where nothing speaks for the answer, there is none."""
    spread = []
    for case in cases:
        heats = explain(made, case).heat
        assert len(heats) == len(case)
        for heat, image in zip(heats, case, strict=True):
            assert heat.shape == (len(image.views), *image.views.shape[2:])
        everything = np.concatenate([heat.ravel() for heat in heats])
        assert everything.min() >= 0
        assert everything.max() == pytest.approx(1) or (everything == 0).all()
        spread.append(everything.std())
    assert max(spread) > 0.01


def test_the_heaviest_member_is_shown(encoder: FrozenEncoder) -> None:
    members = [head_member(HEADS[1], "binary", encoder), network_member("binary")]
    (case,) = images([1], 6, side=16)
    for weights, name in (([0.7, 0.3], "head"), ([0.3, 0.7], "net")):
        made = classifier("binary", members, weights, {0: encoder})
        assert explain(made, case).member == name


def test_an_encoder_of_pictures_of_a_volume_has_no_map_of_it() -> None:
    torch.manual_seed(0)
    frozen = FrozenEncoder({**FROZEN, "volumes": True, "size": 32}, Path(), pretrained=False)
    target, spec = TARGETS["binary"], HEADS[1]
    cases = images([1, 1, 1, 1], 0, dims=3, side=6)
    head = new_head(spec, frozen.features, (3, 2, 0), target)
    fit_head(head, spec, embed(frozen, cases), ["no", "yes"] * 2, target, None, 0)
    made = classifier("binary", [HeadMember("h", 0, spec, head, target)], [1.0], {0: frozen})
    assert explain(made, cases[0]).heat == ()


class Plain(nn.Module):
    """Two maps: where the image is bright, and where it is dark."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(1, 2, 1, bias=False)
        conv.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.layers = nn.Sequential(conv, nn.ReLU(inplace=True))

    def means(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))


def test_heat_known_by_hand() -> None:
    # Class 0 gains by what is bright and loses by what is dark, class 1 gains by what is dark.
    plain = Plain()
    x = torch.zeros(2, 1, 8, 8)
    x[0, 0, 2, 3], x[0, 0, 5, 6], x[1, 0, 4, 4] = 2.0, -1.0, 1.0
    weights = torch.tensor([[3.0, -1.0], [0.0, 1.0]])

    def answer(views: torch.Tensor) -> torch.Tensor:
        return plain.means(views).mean(0, keepdim=True) @ weights.T

    first = _grad_cam(plain, answer, x, 0, 2)
    np.testing.assert_allclose(first, np.maximum(x[:, 0].numpy(), 0) / 2, atol=1e-6)
    second = _grad_cam(plain, answer, x, 1, 2)
    np.testing.assert_allclose(second, np.maximum(-x[:, 0].numpy(), 0), atol=1e-6)


@pytest.mark.parametrize(("grade", "where"), [(0, (5, 6)), (2, (2, 3))])
def test_heat_of_a_grade_speaks_for_it_and_not_for_what_lies_above(
    grade: int, where: tuple[int, int]
) -> None:
    plain = Plain()
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 2, 3], x[0, 0, 5, 6] = 1.0, -1.0  # bright raises the grade, dark lowers it

    def answer(views: torch.Tensor) -> torch.Tensor:
        bright, dark = plain.means(views).T
        return torch.stack([bright - dark] * 2, dim=1)  # two logits: three grades

    heat = _grad_cam(plain, answer, x, grade, 3)[0]
    assert heat[where] == 1
    assert (heat > 0).sum() == 1


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_every_network_has_maps(name: str) -> None:
    torch.manual_seed(0)
    network = build(
        name, spatial_dims=2, in_channels=1, out_channels=3, stem="small", width=8
    ).eval()
    x = torch.randn(2, 1, 20, 20)
    heat = _grad_cam(network, lambda views: network(views).mean(0, keepdim=True), x, 1, 3)
    assert heat.shape == (2, 20, 20)
    assert heat.max() == pytest.approx(1)
    assert heat.std() > 0.01


def test_heat_falls_on_what_a_trained_network_tells_classes_by() -> None:
    # A bright square at a random place says yes.
    rng, count = np.random.default_rng(0), 96
    x = rng.normal(0, 0.3, (count, 1, 16, 16)).astype(np.float32)
    places = rng.integers(1, 11, (count, 2))
    for n, (i, j) in enumerate(places):
        x[n, 0, i : i + 4, j : j + 4] += 3 * (n % 2)
    member, codes = network_member("binary", pooling="mean"), torch.arange(count) % 2
    model, given = member.module.train(), torch.from_numpy(x)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(40):
        part = slice(24 * (step % 4), 24 * (step % 4) + 24)
        logits = model.encoder.head(model.encode(given[part]))
        loss = nn.functional.cross_entropy(logits, codes[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    made = classifier("binary", [member], [1.0])
    inside = []
    for n in range(1, 20, 2):
        (heat,) = explain(made, [Image(x[[n]].astype(np.float16), (0, 0, 0))]).heat
        i, j = np.maximum(places[n] - 2, 0)
        inside.append(heat[0, i : i + 8, j : j + 8].sum() / heat.sum())
    assert np.mean(inside) > 0.5  # of a quarter of the area
