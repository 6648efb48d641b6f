# SPDX-License-Identifier: Apache-2.0
"""The mean of several answers: by hand, by the laws of mirrors, through everything on logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.normalization import Normalizer
from vesalius.tasks.segment.doubt import Doubt
from vesalius.tasks.segment.ensemble import Ensemble, log_mean, mirrored
from vesalius.tasks.segment.predict import Segmenter
from vesalius.volume import Volume

SHAPE = (2, 3, 5, 4, 3)  # N, classes, i, j, k


def drawn(seed: int, scale: float = 3.0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def probabilities(logits: Tensor, regions: bool) -> Tensor:
    return torch.sigmoid(logits) if regions else torch.softmax(logits, 1)


@pytest.mark.parametrize("regions", [False, True])
@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4), st.floats(0.1, 8))
def test_the_mean_is_that_of_the_probabilities(regions: bool, seeds: list, scale: float) -> None:
    answers = [drawn(seed, scale) for seed in seeds]
    expected = torch.stack([probabilities(a.double(), regions) for a in answers]).mean(0)
    found = probabilities(log_mean(answers, regions=regions).double(), regions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_certain_answers_stay_finite_and_keep_their_order(regions: bool) -> None:
    sure = torch.tensor([[[300.0, -300.0], [-300.0, 300.0]]])
    found = log_mean([sure, sure * 0.5], regions=regions)
    assert torch.isfinite(found).all()
    assert (found.argmax(1) == sure.argmax(1)).all()
    assert ((found > found.flip(1)) == (sure > 0)).all()


class Fixed(nn.Module):
    """A small network with one convolution; asymmetric."""

    def __init__(self, seed: int, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = nn.Conv3d(1, classes, 3, padding=1)
            nn.init.normal_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


DECISIONS = {
    "orientation": "RAS", "patch": [10, 8, 8], "overlap": 0.5, "spacing": [1.0, 1.0, 1.0],
    "values": [2, 5], "labels": ["a", "b"], "network": {"in_channels": 1}, "color": False,
    "precision": "32-true", "augmentation": {"flips": [0, 2]},
}  # fmt: skip


def volume(seed: int = 0) -> Volume:
    values = np.random.default_rng(seed).normal(size=(1, 16, 13, 12)).astype(np.float32)
    return Volume(values, np.eye(4))


@pytest.mark.parametrize("regions", [False, True])
def test_members_that_agree_answer_as_one_of_them(regions: bool) -> None:
    decisions = {**DECISIONS, "regions": regions}
    one = Fixed(1, 2 if regions else 3)
    segmenters = [
        Segmenter(model, decisions, Normalizer())
        for model in (one, Ensemble([one, one, one], regions=regions))
    ]
    doubts = [Doubt.of(decisions) for _ in segmenters]
    alone, together = (
        s.predict(volume(), doubt=d).data for s, d in zip(segmenters, doubts, strict=True)
    )
    assert len(np.unique(alone)) > 1
    assert (alone == together).mean() > 0.9999  # but for ties
    np.testing.assert_allclose(doubts[0].expected_dice(), doubts[1].expected_dice(), rtol=1e-4)


def test_members_that_differ_answer_by_their_mean_and_each_alone() -> None:
    several = [Fixed(seed) for seed in range(3)]
    segmenter = Segmenter(Ensemble(several, regions=False), {**DECISIONS, "folds": 3}, Normalizer())
    x = drawn(9, 1.0, (2, 1, 10, 8, 8))
    mean = torch.stack([torch.softmax(one(x), 1) for one in several]).mean(0)
    torch.testing.assert_close(torch.softmax(segmenter.logits(x), 1), mean, rtol=1e-4, atol=1e-6)
    for number, one in enumerate(several):
        torch.testing.assert_close(segmenter.member(number).logits(x), one(x))


@pytest.mark.parametrize("regions", [False, True])
@settings(deadline=None, max_examples=10)
@given(st.sets(st.integers(0, 2)), st.integers(0, 100))
def test_the_mean_over_mirror_images_knows_no_side(regions: bool, axes: set, seed: int) -> None:
    calls = []

    def network(x: Tensor) -> Tensor:
        calls.append(x)
        return Fixed(seed)(x)

    answer = mirrored(network, sorted(axes), regions=regions)
    x = drawn(seed, 1.0, (1, 1, 6, 5, 4))
    found = answer(x)
    assert len(calls) == 2 ** len(axes)
    for axis in axes:
        turned = answer(x.flip(2 + axis)).flip(2 + axis)
        torch.testing.assert_close(turned, found, rtol=1e-4, atol=1e-4)


def test_a_segmenter_mirrors_along_the_axes_of_its_plan() -> None:
    segmenter = Segmenter(Fixed(4), DECISIONS, Normalizer())
    image = volume()
    turned = Volume(np.ascontiguousarray(image.data[:, ::-1]), image.affine)
    for mirror, same in ((False, False), (True, True)):
        one = segmenter.predict(image, mirror=mirror).data
        other = segmenter.predict(turned, mirror=mirror).data[:, ::-1]
        assert ((one == other).mean() > 0.999) == same
    plain, twice = (segmenter.layout(image, mirror=mirror).bytes for mirror in (False, True))
    assert plain < twice
    sided = Segmenter(Fixed(4), {**DECISIONS, "augmentation": {"flips": []}}, Normalizer())
    with pytest.raises(UsageError, match="leave mirror out"):
        sided.predict(image, mirror=True)
