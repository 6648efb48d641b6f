# SPDX-License-Identifier: Apache-2.0
"""Every segmentation network against the contract of `SegmentationNetwork`."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks import SEGMENTATION_NETWORKS, build
from vesalius.networks.layers import enlarge
from vesalius.networks.segmentation_network import SegmentationNetwork, check_size
from vesalius.training.loss import deep_supervision_loss, dice_cross_entropy

SMALL = {
    "unet": {"widths": (4, 8, 12, 16)},
    "fcn": {"encoder": "resnet10", "stem": "small", "width": 8},
    "resenc-unet": {"widths": (4, 8, 12, 16), "blocks": (1, 2, 1, 2)},
    "light-unet": {"stem": "small", "width": 8},
}
SUPERVISED = ("unet", "resenc-unet", "light-unet")


def small(name: str, dims: int, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {**SMALL[name], **options}
    return build(name, spatial_dims=dims, in_channels=2, out_channels=3, **options)


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """No weight at its starting value: some of those are zero on purpose."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_each_answers_on_the_grid_of_its_input(name: str, dims: int) -> None:
    network = small(name, dims).eval()
    assert isinstance(network, SegmentationNetwork)
    assert network.multiple == (8,) * dims
    x = torch.randn(2, 2, *(24, 16, 8)[:dims])
    with torch.inference_mode():
        found = network(x)
        assert found.shape == (2, 3, *x.shape[2:])
        torch.testing.assert_close(  # one by one
            found, torch.cat([network(item[None]) for item in x]), rtol=1e-4, atol=1e-5
        )
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("stem", ["small", "medium", "large"])
@pytest.mark.parametrize("name", ["fcn", "light-unet"])
def test_stems_set_what_sizes_are_taken(name: str, stem: str) -> None:
    network = small(name, 2, stem=stem).eval()
    step = {"small": 8, "medium": 16, "large": 32}[stem]
    assert network.multiple == (step, step)
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 2 * step, step)).shape == (1, 3, 2 * step, step)


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_other_sizes_are_refused_with_one_that_would_do(name: str) -> None:
    network = small(name, 2)
    with pytest.raises(UsageError, match=r"multiples of 8 x 8 .*got 17 x 16: pad .* to 24 x 16"):
        network(torch.randn(1, 2, 17, 16))
    with pytest.raises(UsageError, match="takes 2 spatial axes, got 3"):
        network(torch.randn(1, 2, 16, 16, 16))
    with pytest.raises(UsageError, match=r"at least 2 .*got 8 x 8: pad the image to 16 x 8"):
        network.train()(torch.randn(1, 2, 8, 8))  # no statistics of one voxel


@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 32)), min_size=2, max_size=3),
    st.integers(1, 2),
)
def test_the_size_that_a_refusal_names_is_taken_and_no_smaller_multiple_would_do(
    axes: list[tuple[int, int]], fewest: int
) -> None:
    sides, multiple = zip(*axes, strict=True)
    x = torch.empty(1, 1, *sides, device="meta")
    cells = [math.ceil(side / step) for side, step in axes]
    if all(side % step == 0 for side, step in axes) and math.prod(cells) >= fewest:
        check_size(x, multiple, fewest=fewest)
        return
    with pytest.raises(UsageError) as refusal:
        check_size(x, multiple, fewest=fewest)
    named = [int(n) for n in re.findall(r"\d+", str(refusal.value).split("pad the image to")[1])]
    check_size(torch.empty(1, 1, *named, device="meta"), multiple, fewest=fewest)
    if math.prod(cells) >= fewest:
        assert named == [count * step for count, step in zip(cells, multiple, strict=True)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_the_gradient_reaches_every_parameter(name: str, dims: int) -> None:
    network = shaken(small(name, dims)).eval()  # in training, biases before a norm do nothing
    network(torch.randn(2, 2, *[16] * dims)).square().sum().backward()
    silent = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_a_few_steps_learn_one_image(name: str) -> None:
    network = small(name, 2).train()
    place = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 2, indexing="ij"))
    truth = torch.stack([((place - 10).square().sum(0) < 40).long(), (place[1] > 20).long() * 2])
    x = functional.one_hot(truth, 3).movedim(-1, 1)[:, 1:].float()
    x = x + 0.3 * torch.randn_like(x)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-2)
    losses = []
    for _ in range(25):
        loss = dice_cross_entropy(network(x), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_answers_at_all_levels_but_the_two_coarsest(name, dims) -> None:
    network = small(name, dims, deep_supervision=True)
    x = torch.randn(2, 2, *[16] * dims)
    several = network.train()(x)
    assert [tuple(logits.shape) for logits in several] == [
        (2, 3, *[16] * dims),
        (2, 3, *[8] * dims),
    ]
    finest = network.eval()(x)
    assert finest.shape == (2, 3, *[16] * dims)
    if name != "light-unet":  # whose statistics in training are the batch's
        torch.testing.assert_close(finest, several[0])


@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_adds_heads_alone_and_teaches_them(name: str) -> None:
    plain, deep = small(name, 2), small(name, 2, deep_supervision=True)
    assert isinstance(plain.train()(torch.randn(2, 2, 16, 16)), torch.Tensor)
    added = deep.state_dict().keys() - plain.state_dict().keys()
    assert added == {"heads.0.weight", "heads.0.bias"}
    assert plain.state_dict().keys() < deep.state_dict().keys()
    shaken(deep).train()
    labels = torch.randint(0, 3, (2, 16, 16))
    outputs = deep(torch.randn(2, 2, 16, 16))
    deep_supervision_loss(dice_cross_entropy, outputs, labels).backward()
    silent = [k for k, p in deep.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", [2, 8])
def test_enlarging_is_the_deconvolution_of_the_fcn_paper_away_from_borders(factor, dims) -> None:
    x = torch.randn(1, 3, *[6] * dims)
    ramp = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor  # Caffe's bilinear filler
    kernel = ramp
    for _ in range(dims - 1):
        kernel = kernel[..., None] * ramp
    convolve = functional.conv_transpose2d if dims == 2 else functional.conv_transpose3d
    wanted = convolve(
        x,
        kernel.expand(3, 1, *kernel.shape),
        stride=factor,
        padding=factor // 2,
        groups=3,
    )
    found = enlarge(x, factor)
    inner = (..., *[slice(factor, -factor)] * dims)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found[inner], wanted[inner])
