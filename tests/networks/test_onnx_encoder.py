# SPDX-License-Identifier: Apache-2.0
"""ONNX encoders against the same convolution in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vesalius.errors import RunError, UsageError
from vesalius.networks.external import load_encoder
from vesalius.networks.onnx_encoder import OnnxEncoder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def write(
    path: Path,
    shape: Sequence[int | str | None],
    *,
    kind: str = "FLOAT",
    pooled: bool = False,
    outputs: Sequence[str] = ("maps",),
) -> torch.Tensor:
    """Write a 3-wide convolution of 2 into 5 channels, pooled or not; return its kernel."""
    dims = len(shape) - 2
    dtype = np.float32 if kind == "FLOAT" else np.float16
    kernel = np.random.default_rng(0).normal(size=(5, 2, *[3] * dims)).astype(dtype)
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["c" if pooled else "maps"])]
    if pooled:
        nodes += [
            onnx.helper.make_node("GlobalAveragePool", ["c"], ["g"]),
            onnx.helper.make_node("Flatten", ["g"], ["maps"]),
        ]
    if "twice" in outputs:
        nodes.append(onnx.helper.make_node("Add", ["maps", "maps"], ["twice"]))
    element = getattr(onnx.TensorProto, kind)
    rank = 2 if pooled else dims + 2
    graph = onnx.helper.make_graph(
        nodes,
        "encoder",
        [onnx.helper.make_tensor_value_info("x", element, shape)],
        [onnx.helper.make_tensor_value_info(name, element, [None] * rank) for name in outputs],
        [onnx.numpy_helper.from_array(kernel, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return torch.from_numpy(kernel)


def convolved(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    convolve = functional.conv2d if x.ndim == 4 else functional.conv3d
    return convolve(x, kernel.float()).flatten(2).mean(2)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_maps_are_averaged_and_vectors_taken(pooled: bool, dims: int, tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    kernel = write(path, ["n", 2, *["s"] * dims], pooled=pooled)
    encoder = load_encoder(path)
    assert isinstance(encoder, OnnxEncoder)
    assert (encoder.features, encoder.spatial_dims, encoder.in_channels) == (5, dims, 2)
    assert encoder.size == (None,) * dims
    x = torch.randn(3, 2, *[9] * dims, requires_grad=True)
    torch.testing.assert_close(
        encoder.encode(x), convolved(x, kernel).detach(), rtol=1e-4, atol=1e-5
    )
    assert encoder.encode(x[:0]).shape == (0, 5)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_fixed_batch_is_filled_and_cut(batch: int, tmp_path: Path) -> None:
    kernel = write(tmp_path / "e.onnx", [batch, 2, 8, 8])
    x = torch.randn(5, 2, 8, 8)
    encoded = OnnxEncoder(tmp_path / "e.onnx").encode(x)
    torch.testing.assert_close(encoded, convolved(x, kernel), rtol=1e-4, atol=1e-5)


def test_a_fixed_size_is_held(tmp_path: Path) -> None:
    write(tmp_path / "e.onnx", ["n", 2, 8, None])
    encoder = OnnxEncoder(tmp_path / "e.onnx")
    assert encoder.size == (8, None)
    assert encoder.encode(torch.zeros(1, 2, 8, 13)).shape == (1, 5)
    with pytest.raises(UsageError, match=r"shape \(2, 8, any\), got \(2, 9, 13\): resample"):
        encoder.encode(torch.zeros(1, 2, 9, 13))
    with pytest.raises(UsageError, match=r"got \(3, 8, 13\)"):
        encoder.encode(torch.zeros(1, 3, 8, 13))
    with pytest.raises(UsageError, match=r"got \(2, 8, 13, 13\)"):
        encoder.encode(torch.zeros(1, 2, 8, 13, 13))
    with pytest.raises(RunError, match=r"fails on \(1, 2, 8, 2\)"):  # less than the kernel
        encoder.encode(torch.zeros(1, 2, 8, 2))


def test_half_precision_gives_single(tmp_path: Path) -> None:
    kernel = write(tmp_path / "e.onnx", ["n", 2, 8, 8], kind="FLOAT16")
    x = torch.randn(2, 2, 8, 8)
    encoded = OnnxEncoder(tmp_path / "e.onnx").encode(x)
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded, convolved(x.half().float(), kernel), rtol=1e-2, atol=1e-2)


def test_what_the_file_leaves_open_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    kernel = write(path, ["n", "c", 8, 8], outputs=("maps", "twice"))
    with pytest.raises(UsageError, match="leaves the number of channels open: give in_channels"):
        OnnxEncoder(path, output="twice")
    with pytest.raises(UsageError, match="output must be one of maps, twice, got None"):
        OnnxEncoder(path, in_channels=2)
    x = torch.randn(1, 2, 8, 8)
    encoded = OnnxEncoder(path, in_channels=2, output="twice").encode(x)
    torch.testing.assert_close(encoded, 2 * convolved(x, kernel), rtol=1e-4, atol=1e-5)
    write(path, ["n", 2, 8, 8])
    with pytest.raises(UsageError, match="takes 2 channels, got in_channels=3"):
        OnnxEncoder(path, in_channels=3)


def test_what_is_no_image_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    write(path, ["n", 2, 8])
    with pytest.raises(RunError, match="one float input"):
        OnnxEncoder(path)
    path.write_bytes(b"no protocol buffer")
    with pytest.raises(RunError, match="cannot open it"):
        load_encoder(path)
    with pytest.raises(UsageError, match="are of safetensors"):
        load_encoder(path, name="resnet18")
