# SPDX-License-Identifier: Apache-2.0
"""ACS convolutions against dense 3D ones with flat kernels, plane by plane, and as networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks import IMAGE_NETWORKS, build
from vesalius.networks.acs import AcsConv, to_acs


def plane_of(output: int, flat: nn.Conv2d) -> int:
    """Return 0, 1, 2 for axial, coronal, sagittal: the first third, the second, the last."""
    each = flat.out_channels // flat.groups
    group, inside = divmod(output, each)
    place, count = (group, flat.groups) if flat.groups >= 3 else (inside, each)
    first = count // 3 + (count % 3 > 0)
    second = first + count // 3 + (count % 3 > 1)
    return int(place >= first) + int(place >= second)


def dense(flat: nn.Conv2d) -> torch.Tensor:
    """Return the 3D kernels that hold the 2D ones in their middle slice, one plane a third."""
    if flat.kernel_size == (1, 1):
        return flat.weight[..., None]
    kernel = flat.weight.new_zeros(*flat.weight.shape, flat.kernel_size[0])
    middle = flat.kernel_size[0] // 2
    for output in range(flat.out_channels):
        weight, plane = flat.weight[output].detach(), plane_of(output, flat)
        if plane == 0:  # axial: i and j
            kernel[output, :, :, :, middle] = weight
        elif plane == 1:  # coronal: i and k
            kernel[output, :, :, middle, :] = weight
        else:  # sagittal: j and k
            kernel[output, :, middle, :, :] = weight
    return kernel


@settings(max_examples=80, deadline=None)
@given(
    channels=st.sampled_from(
        [(1, 1, 1), (1, 3, 2), (1, 2, 7), (2, 4, 8), (6, 6, 6), (4, 4, 8), (3, 6, 12), (8, 8, 8)]
    ),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    shape=st.tuples(*[st.integers(13, 16)] * 3),
)
def test_equal_to_flat_kernels_in_a_dense_convolution(
    channels, kernel, stride, padding, dilation, bias, shape
) -> None:
    groups, inputs, outputs = channels
    torch.manual_seed(0)
    flat = nn.Conv2d(
        inputs, outputs, kernel, stride, padding, dilation, groups, bias, dtype=torch.float64
    )
    x = torch.randn(1, inputs, *shape, dtype=torch.float64)
    expected = functional.conv3d(x, dense(flat), flat.bias, stride, padding, dilation, groups)
    torch.testing.assert_close(AcsConv(flat)(x), expected)


def test_the_axial_third_is_the_2d_convolution_of_each_slice() -> None:
    flat = nn.Conv2d(3, 9, 3, 1, 1)
    x = torch.randn(2, 3, 8, 7, 6)
    y = AcsConv(flat)(x)
    for k in range(6):
        torch.testing.assert_close(y[:, :3, ..., k], flat(x[..., k])[:, :3])
        torch.testing.assert_close(y[:, 3:6, :, k], flat(x[:, :, :, k])[:, 3:6])
        torch.testing.assert_close(y[:, 6:, k], flat(x[:, :, k])[:, 6:])


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_networks_keep_names_and_weights_and_read_volumes(name: str) -> None:
    torch.manual_seed(0)
    flat = build(name, spatial_dims=2, in_channels=1, out_channels=3, stem="small", width=8)
    volumes = to_acs(flat).eval()
    state = flat.state_dict()
    assert list(volumes.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in volumes.state_dict().items())
    volumes.load_state_dict({key: value + 1 for key, value in state.items()})
    assert torch.equal(flat.head.weight, state["head.weight"])  # the original is another network
    assert volumes(torch.randn(2, 1, 16, 13, 12)).shape == (2, 3)
    assert flat.eval()(torch.randn(2, 1, 16, 13)).shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_a_network_equals_its_dense_twin_in_3d(name: str) -> None:
    torch.manual_seed(0)
    options = {"in_channels": 1, "out_channels": 3, "stem": "large", "width": 8}
    flat = build(name, spatial_dims=2, **options).double().eval()
    twin = build(name, spatial_dims=3, **options).double().eval()
    state = flat.state_dict()
    layers = dict(flat.named_modules())
    for key, like in twin.state_dict().items():
        if like.ndim == 5:
            state[key] = dense(layers[key.removesuffix(".weight")])
    twin.load_state_dict(state)
    x = torch.randn(1, 1, 40, 33, 36, dtype=torch.float64)
    torch.testing.assert_close(to_acs(flat)(x), twin(x))


def test_pools_and_dropout_have_counterparts() -> None:
    flat = nn.Sequential(
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d((2, 2), count_include_pad=False),
        nn.Dropout2d(0.3),
        nn.AdaptiveMaxPool2d((3, 2)),
        nn.AdaptiveAvgPool2d(1),
    ).eval()
    x = torch.randn(1, 2, 24, 22, 20)
    expected = functional.adaptive_max_pool3d(
        functional.avg_pool3d(functional.max_pool3d(x, 3, 2, 1), 2), (3, 2, 1)
    ).mean((2, 3, 4), keepdim=True)
    converted = to_acs(flat)
    torch.testing.assert_close(converted(x), expected)
    assert not converted.training
    assert not converted[2].training


def test_gradients_reach_all_three_planes() -> None:
    network = to_acs(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1)))
    network(torch.randn(1, 1, 5, 5, 5)).square().sum().backward()
    assert (network[0].weight.grad.abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(1, 3, (3, 5)), r"kernel_size must be one number for all axes, got \(3, 5\)"),
        (nn.Conv2d(1, 3, 3, (1, 2)), "stride must be one number"),
        (nn.Conv2d(1, 3, 3, padding="same"), "fixed number of zeros"),
        (nn.Conv2d(1, 3, 3, padding=1, padding_mode="reflect"), "fixed number of zeros"),
        (nn.ConvTranspose2d(1, 3, 3), "ConvTranspose2d has no counterpart among ACS layers"),
        (nn.InstanceNorm2d(3), "InstanceNorm2d has no counterpart"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor"),
    ],
)
def test_what_has_no_third_axis_is_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        to_acs(nn.Sequential(layer))
