# SPDX-License-Identifier: Apache-2.0
"""A network in a file, from then on computed in 8-bit integers.

Post-training static quantization (Jacob et al.: Quantization and Training of Neural Networks,
CVPR 2018): the range of each map is what calibration inputs show, weights have one scale a channel.
Convolutions of the image itself and those that make the logits stay as they were. By ONNX Runtime's
quantizer for `.onnx`, by NNCF for OpenVINO: each engine is fast, and right, on what its own makes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesalius.networks.engine import SUFFIXES
from vesalius.optional import require, require_silent
from vesalius.types import Array

# What ONNX Runtime computes in integers, and the activations that follow: a map's range is taken
# after them, where a ReLU6 has narrowed it. The rest would only be converted there and back.
_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Clip", "Relu", "LeakyRelu")


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    convolution: bool
    inputs: Sequence[str]  # names of maps
    outputs: Sequence[str]


def quantize(path: Path, inputs: Sequence[Array], *, given: str) -> None:
    """Replace the network in `path` by its 8-bit form.

    Args:
        path: `.onnx`, or `.xml` with its `.bin`.
        inputs: `(1, C, ...)` float32 each, such as the network is given in use.
        given: name of the network's input.

    Raises:
        MissingDependency: onnxruntime, or openvino and nncf, are absent.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        if path.suffix == SUFFIXES["openvino"]:
            _by_nncf(path, inputs, made)
        else:
            _by_onnx_runtime(path, inputs, given, made)
        for part in sorted(Path(folder).glob(f"{path.stem}.*")):
            part.replace(path.with_name(part.name))


def _by_nncf(path: Path, inputs: Sequence[Array], made: Path) -> None:
    purpose = "8-bit networks of OpenVINO"
    openvino, nncf = require_silent("openvino", purpose), require_silent("nncf", purpose)
    nncf.set_log_level(logging.ERROR)
    network = openvino.Core().read_model(str(path))
    with contextlib.redirect_stdout(io.StringIO()):  # its progress is not the user's
        small = nncf.quantize(
            network,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_ends(_openvino_nodes(network))),
        )
    openvino.save_model(small, str(made), compress_to_fp16=False)


def _by_onnx_runtime(path: Path, inputs: Sequence[Array], given: str, made: Path) -> None:
    require("onnxruntime", "8-bit networks in ONNX")
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain = made.with_suffix(".plain.onnx")
    quant_pre_process(str(path), str(plain), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(plain),
        str(made),
        _reader(quantization.CalibrationDataReader, inputs, given),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(_OPERATORS),
        nodes_to_exclude=_ends(_onnx_nodes(onnx.load(plain))),
        per_channel=True,
    )
    plain.unlink()


def _ends(nodes: Sequence[_Node]) -> list[str]:
    """Return the convolutions that no other one comes before, and those that none comes after.

    Args:
        nodes: in the order of computation.
    """
    found = set()
    for forward in (True, False):
        reached: set[str] = set()  # maps on the way from a convolution
        for node in nodes if forward else reversed(nodes):
            given, got = (node.inputs, node.outputs) if forward else (node.outputs, node.inputs)
            beyond = not reached.isdisjoint(given)
            if node.convolution and not beyond:
                found.add(node.name)
            if node.convolution or beyond:
                reached.update(got)
    return sorted(found)


def _onnx_nodes(model: Any) -> list[_Node]:
    return [
        _Node(node.name, node.op_type.startswith("Conv"), list(node.input), list(node.output))
        for node in model.graph.node
    ]


def _openvino_nodes(network: Any) -> list[_Node]:
    return [
        _Node(
            node.get_friendly_name(),
            "Convolution" in node.get_type_name(),
            [item.get_source_output().get_node().get_friendly_name() for item in node.inputs()],
            [node.get_friendly_name()],
        )
        for node in network.get_ordered_ops()
    ]


def _reader(base: type, inputs: Sequence[Array], given: str) -> object:
    """Return what ONNX Runtime reads calibration inputs from, one a call."""

    class Reader(base):  # type: ignore[misc]  # known when it is called
        def __init__(self) -> None:
            self.rest: Iterator[Array] = iter(inputs)

        def get_next(self) -> dict[str, Array] | None:
            found = next(self.rest, None)
            return None if found is None else {given: found}

    return Reader()
