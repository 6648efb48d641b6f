# SPDX-License-Identifier: Apache-2.0
"""Every image network against the contract of `ImageNetwork` and published parameter counts."""

from __future__ import annotations

import inspect
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks import IMAGE_NETWORKS, NETWORKS, SEGMENTATION_NETWORKS, build
from vesalius.networks.image_network import Encoder, ImageNetwork
from vesalius.networks.layers import FittingMaxPool, grid
from vesalius.networks.registry import ENCODERS


def small(name: str, dims: int, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(name, spatial_dims=dims, in_channels=2, out_channels=3, width=8, **options)


def test_a_network_describes_images_or_labels_voxels() -> None:
    assert tuple(NETWORKS) == (*IMAGE_NETWORKS, *SEGMENTATION_NETWORKS)
    unet = build("unet", spatial_dims=2, in_channels=1, out_channels=2, widths=(4, 8))
    assert not isinstance(unet, ImageNetwork)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_each_meets_the_protocol_without_attribute_hooks(name: str) -> None:
    network = small(name, 2)
    assert isinstance(network, ImageNetwork)
    # Python 3.12 looks the members up without __getattr__, which holds PyTorch's submodules.
    for member in ("features", "maps", "encode", "forward"):
        assert inspect.getattr_static(network, member) is not None


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("alexnet", 61_100_840),
        ("vgg11", 132_868_840),
        ("vgg16", 138_365_992),
        ("resnet18", 11_689_512),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, published: int) -> None:
    # 1000 classes, 3 channels; VGG with batch normalization, as torchvision counts them.
    with torch.device("meta"):
        network = build(name, spatial_dims=2, in_channels=3, out_channels=1000, stem="large")
    assert sum(parameter.numel() for parameter in network.parameters()) == published


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize(("stem", "size"), [("small", 8), ("medium", 16), ("large", 32)])
def test_the_smallest_promised_input_is_taken(name, dims, stem, size) -> None:
    network = small(name, dims, stem=stem).eval()
    x = torch.randn(2, 2, *[size] * dims)
    embedding = network.encode(x)
    assert embedding.shape == (2, network.features)
    assert network.maps(x).shape[0] == 2
    torch.testing.assert_close(network(x), network.head(embedding))
    assert not torch.allclose(embedding[0], embedding[1], atol=0)  # it reads the image


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_odd_sizes_and_thin_volumes_pass(name: str) -> None:
    assert small(name, 3, stem="large").eval()(torch.randn(1, 2, 41, 33, 8)).shape == (1, 3)
    assert small(name, 2, stem="small").eval()(torch.randn(1, 2, 28, 45)).shape == (1, 3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_batch_equals_one_by_one(name: str, dims: int) -> None:
    network = small(name, dims, stem="small").eval()
    x = torch.randn(3, 2, *(13, 10, 9)[:dims])
    alone = torch.cat([network(item[None]) for item in x])
    torch.testing.assert_close(network(x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_the_gradient_reaches_the_first_layer(name: str) -> None:
    network = small(name, 2, stem="small")
    network(torch.randn(4, 2, 28, 28)).square().sum().backward()
    first = next(network.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 1e-6


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg16"])
def test_untrained_layers_keep_the_scale_of_the_image(name: str) -> None:
    embedding = small(name, 2, stem="large").eval().encode(torch.randn(4, 2, 96, 96))
    assert 0.1 < embedding.std() < 10


def test_classes_are_known_to_the_head_alone() -> None:
    for name in IMAGE_NETWORKS:
        with torch.device("meta"):
            two, nine = (
                build(name, spatial_dims=2, in_channels=1, out_channels=n).state_dict()
                for n in (2, 9)
            )
        differ = {key for key in two if two[key].shape != nine[key].shape}
        assert differ == {"head.weight", "head.bias"}


def test_pooling_is_the_ordinary_one_where_it_fits() -> None:
    x = torch.randn(2, 3, 9, 7, 5)
    torch.testing.assert_close(FittingMaxPool(3, 2)(x), functional.max_pool3d(x, 3, 2))
    torch.testing.assert_close(FittingMaxPool(2, 2)(x[..., 0]), functional.max_pool2d(x[..., 0], 2))
    thin = x[..., :1]
    torch.testing.assert_close(
        FittingMaxPool(2, 2)(thin)[..., 0], functional.max_pool2d(thin[..., 0], 2)
    )


def test_volumes_get_at_most_three_cells_along_their_last_axis() -> None:
    assert grid(2, 7) == (7, 7)
    assert grid(3, 7) == (7, 7, 3)
    assert grid(3, 2) == (2, 2, 2)


def test_networks_with_maps_of_each_resolution_are_encoders() -> None:
    assert {n for n in IMAGE_NETWORKS if isinstance(small(n, 2), Encoder)} == set(ENCODERS)
    with pytest.raises(UsageError, match="out_channels must be at least 1, got 0"):
        build("alexnet", spatial_dims=2, in_channels=1, out_channels=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("stem", ["small", "medium", "large"])
def test_an_encoder_states_the_widths_and_strides_of_its_maps(name, dims, stem) -> None:
    network = small(name, dims, stem=stem).eval()
    with torch.inference_mode():
        found = network.pyramid(torch.randn(1, 2, *[32] * dims))
    strides, widths = network.pyramid_strides, network.pyramid_widths
    assert [tuple(m.shape[1:]) for m in found] == [
        (wide, *[32 // stride] * dims) for wide, stride in zip(widths, strides, strict=True)
    ]
    assert all(coarse == 2 * fine for fine, coarse in pairwise(strides))
    assert strides[-1] == {"small": 8, "medium": 16, "large": 32}[stem]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_takes_the_weights_of_its_classifier_and_no_others(name: str) -> None:
    classifier = small(name, 2).eval()
    encoder = build(name, spatial_dims=2, in_channels=2, out_channels=0, width=8).eval()
    assert type(encoder) is type(classifier)
    state = classifier.state_dict()
    encoder.load_state_dict(state)  # strictly
    own = encoder.state_dict()
    assert {key.split(".")[0] for key in state.keys() - own.keys()} <= {"head", "hidden", "last"}
    assert all(torch.equal(own[key], state[key]) for key in own)
    x = torch.randn(1, 2, 64, 64)
    coarsest = encoder.pyramid(x)[-1]
    if name == "efficientnet_lite0":
        coarsest = classifier.last(coarsest)
    torch.testing.assert_close(coarsest, classifier.maps(x))
    with pytest.raises(RuntimeError, match="Unexpected"):
        encoder.load_state_dict({**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing"):
        encoder.load_state_dict(dict(list(state.items())[1:]))
