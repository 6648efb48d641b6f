# SPDX-License-Identifier: Apache-2.0
"""Encoders from safetensors: what was written, published names, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vesalius.errors import RunError, UnsupportedFormat, UsageError
from vesalius.networks import IMAGE_NETWORKS, build
from vesalius.networks.external import load_encoder, save_encoder


def network(name: str = "resnet10", dims: int = 2, **options) -> nn.Module:
    torch.manual_seed(0)
    return build(name, spatial_dims=dims, in_channels=2, out_channels=3, width=8, **options)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_what_was_saved_is_loaded_without_further_words(name: str, dims: int, tmp_path) -> None:
    original = network(name, dims, stem="small")
    path = save_encoder(original, tmp_path / "encoder.safetensors", name=name, stem="small")
    loaded = load_encoder(path)
    x = torch.randn(2, 2, *[12] * dims)
    assert not loaded.training
    torch.testing.assert_close(loaded(x), original.eval()(x))
    torch.testing.assert_close(loaded.encode(x), original.encode(x))


def test_an_encoder_needs_no_head(tmp_path: Path) -> None:
    state = {k: v for k, v in network().state_dict().items() if not k.startswith("head.")}
    save_file(state, tmp_path / "e.safetensors")
    loaded = load_encoder(tmp_path / "e.safetensors", name="resnet10")
    x = torch.randn(1, 2, 32, 32)
    torch.testing.assert_close(loaded.encode(x), network().eval().encode(x))
    assert loaded.head.out_features == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's own imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("name", "block"), [("resnet18", "basic"), ("resnet50", "bottleneck")])
@pytest.mark.parametrize("dims", [2, 3])
def test_published_residual_names_give_the_answers_of_monai(name, block, dims, tmp_path) -> None:
    resnet = pytest.importorskip("monai.networks.nets.resnet")
    torch.manual_seed(0)
    peer = resnet.ResNet(
        block,
        [2, 2, 2, 2] if name == "resnet18" else [3, 4, 6, 3],
        [8, 16, 32, 64],
        spatial_dims=dims,
        n_input_channels=3,
        num_classes=5,
        conv1_t_stride=2,
        bias_downsample=False,
    ).eval()
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean, std=0.1)
    state = {k: v for k, v in peer.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "peer.safetensors")
    loaded = load_encoder(tmp_path / "peer.safetensors", name=name)
    x = torch.randn(2, 3, *[40, 36, 33][:dims])
    torch.testing.assert_close(loaded(x), peer(x), rtol=1e-4, atol=1e-5)


class Published(nn.Module):
    """AlexNet or VGG-11 in the published layout: `features`, `avgpool` and `classifier`."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        w = width
        layers: list[nn.Module] = []
        if name == "alexnet":
            relu, pool = nn.ReLU, lambda: nn.MaxPool2d(3, 2)
            layers = [nn.Conv2d(3, w, 11, 4, 2), relu(), pool()]
            layers += [nn.Conv2d(w, 3 * w, 5, 1, 2), relu(), pool()]
            layers += [nn.Conv2d(3 * w, 6 * w, 3, 1, 1), relu()]
            layers += [nn.Conv2d(6 * w, 4 * w, 3, 1, 1), relu()]
            layers += [nn.Conv2d(4 * w, 4 * w, 3, 1, 1), relu(), pool()]
        else:
            channels = 3
            for wide in (
                w,
                "M",
                2 * w,
                "M",
                4 * w,
                4 * w,
                "M",
                8 * w,
                8 * w,
                "M",
                8 * w,
                8 * w,
                "M",
            ):
                if wide == "M":
                    layers.append(nn.MaxPool2d(2, 2))
                    continue
                layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
                channels = wide
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(6 if name == "alexnet" else 7)
        wide = 4 * w * 36 if name == "alexnet" else 8 * w * 49
        linear = [nn.Linear(wide, 64 * w), nn.Linear(64 * w, 64 * w), nn.Linear(64 * w, 5)]
        rest = [nn.ReLU(), nn.Dropout(), nn.ReLU(), nn.Dropout()]
        order = (
            [rest[1], linear[0], rest[0], rest[3], linear[1], rest[2], linear[2]]
            if name == "alexnet"
            else [linear[0], rest[0], rest[1], linear[1], rest[2], rest[3], linear[2]]
        )
        self.classifier = nn.Sequential(*order)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_published_plain_networks_give_their_own_answers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    peer = Published(name, 4).eval()
    save_file(peer.state_dict(), tmp_path / "peer.safetensors")
    x = torch.randn(2, 3, 230, 224)
    loaded = load_encoder(tmp_path / "peer.safetensors", name=name)
    torch.testing.assert_close(loaded(x), peer(x), rtol=1e-4, atol=1e-6)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    state = network().state_dict()
    del state["stages.0.branch.0.weight"]
    state["stages.0.extra"] = torch.zeros(1)
    state["stages.3.branch.4.bias"] = torch.zeros(7)
    save_file(state, path)
    with pytest.raises(RunError) as raised:
        load_encoder(path, name="resnet10")
    for words in (
        "missing: stages.0.branch.0.weight",
        "unknown: stages.0.extra",
        "of another shape: stages.3.branch.4.bias",
    ):
        assert words in str(raised.value)


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = save_encoder(network(), tmp_path / "e.safetensors", name="resnet10", stem="large")
    with pytest.raises(UsageError, match="holds name 'resnet10', got 'vgg11': leave name out"):
        load_encoder(path, name="vgg11")
    with pytest.raises(UsageError, match="holds stem 'large', got 'small'"):
        load_encoder(path, stem="small")
    save_file(load_file(path), tmp_path / "nameless.safetensors")
    with pytest.raises(UsageError, match="give name, one of cnn"):
        load_encoder(tmp_path / "nameless.safetensors")
    with pytest.raises(UsageError, match=r"name must be one of .* got 'unet'"):
        load_encoder(tmp_path / "nameless.safetensors", name="unet")
    with pytest.raises(RunError, match=r"is not a vgg11: it has no convolution 'convolutions.0"):
        load_encoder(tmp_path / "nameless.safetensors", name="vgg11")
    with pytest.raises(RunError, match="is not a resnet18 with the stem 'large'; missing: "):
        load_encoder(tmp_path / "nameless.safetensors", name="resnet18")


def test_other_files_are_refused_with_the_way_out(tmp_path: Path) -> None:
    for suffix in (".pt", ".pth", ".ckpt", ".bin", ".PTH"):
        path = tmp_path / f"weights{suffix}"
        torch.save(network().state_dict(), path)
        with pytest.raises(UnsupportedFormat, match=r"can run code .*\.convert_pickle"):
            load_encoder(path, name="resnet10")
    disguised = (tmp_path / "weights.pt").rename(tmp_path / "disguised.safetensors")
    with pytest.raises(RunError, match="is no safetensors file"):
        load_encoder(disguised, name="resnet10")
    with pytest.raises(UnsupportedFormat, match=r"is a .safetensors or .onnx file, got '.h5'"):
        load_encoder(tmp_path / "weights.h5")
    with pytest.raises(RunError, match="no such file"):
        load_encoder(tmp_path / "absent.onnx")
