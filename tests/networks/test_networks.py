# SPDX-License-Identifier: Apache-2.0
"""Networks against published parameter counts, MONAI's own, and their shape laws."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from vesalius.errors import UsageError
from vesalius.networks import build


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_parameter_counts_are_the_published_ones(name: str, published: int) -> None:
    # ImageNet networks as published with He et al. 2016 and counted by torchvision.
    assert count(build(name, spatial_dims=2, in_channels=3, out_channels=1000)) == published


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's own imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_3d_resnet_has_as_many_parameters_as_monai() -> None:
    resnet = pytest.importorskip("monai.networks.nets.resnet")
    peer = resnet.resnet18(
        spatial_dims=3, n_input_channels=1, num_classes=2, shortcut_type="B", bias_downsample=False
    )
    assert count(build("resnet18", spatial_dims=3, in_channels=1, out_channels=2)) == count(peer)


def test_stems_divide_by_32_16_and_8() -> None:
    x = torch.zeros(1, 1, 64, 64)
    for stem, size in (("large", 2), ("medium", 4), ("small", 8)):
        network = build(
            "resnet10", spatial_dims=2, in_channels=1, out_channels=2, stem=stem, width=8
        )
        assert network.stages(network.stem(x)).shape == (1, 64, size, size)


def test_batch_equals_one_by_one() -> None:
    torch.manual_seed(0)
    network = build("resnet10", spatial_dims=3, in_channels=1, out_channels=2, width=8).eval()
    x = torch.randn(3, 1, 20, 24, 16)
    alone = torch.cat([network(item[None]) for item in x])
    torch.testing.assert_close(network(x), alone)


@pytest.mark.parametrize(
    ("shape", "strides", "kernels"),
    [
        ((32, 48), [[1, 1], [2, 2], [2, 2]], [[3, 3]] * 3),
        ((16, 32, 6), [[1, 1, 1], [2, 2, 1], [2, 2, 2]], [[3, 3, 1], [3, 3, 1], [3, 3, 3]]),
    ],
)
def test_unet_answers_on_the_grid_of_its_input(shape, strides, kernels) -> None:
    network = build(
        "unet",
        spatial_dims=len(shape),
        in_channels=2,
        out_channels=3,
        widths=(4, 8, 16),
        strides=strides,
        kernels=kernels,
    )
    assert network(torch.randn(2, 2, *shape)).shape == (2, 3, *shape)


def test_unet_kernel_of_one_never_mixes_slices() -> None:
    torch.manual_seed(0)
    network = build(
        "unet",
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        widths=(4,),
        strides=[[1, 1, 1]],
        kernels=[[3, 3, 1]],
    )
    for module in network.modules():  # the statistics of instance normalization span slices
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.forward = lambda x: x
    x = torch.randn(1, 1, 8, 8, 4)
    y = x.clone()
    y[..., 3] += 1
    a, b = network(x), network(y)
    torch.testing.assert_close(a[..., :3], b[..., :3])
    assert not torch.allclose(a[..., 3], b[..., 3])


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        build("resnet-18", spatial_dims=2, in_channels=1, out_channels=2)
    with pytest.raises(UsageError, match="stem must be one of small, medium, large, got 'tiny'"):
        build("cnn", spatial_dims=2, in_channels=1, out_channels=2, stem="tiny")
    with pytest.raises(UsageError, match="width must be at least 1 channel, got 0"):
        build("cnn", spatial_dims=2, in_channels=1, out_channels=2, width=0)
    with pytest.raises(UsageError, match="spatial_dims must be 2 or 3"):
        build("unet", spatial_dims=1, in_channels=1, out_channels=2)
    with pytest.raises(UsageError, match="one entry a level"):
        build(
            "unet",
            spatial_dims=2,
            in_channels=1,
            out_channels=2,
            widths=(4, 8),
            strides=[[1, 1]],
            kernels=[[3, 3]],
        )


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, vesalius.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
