# SPDX-License-Identifier: Apache-2.0
"""A PyTorch network as a graph in ONNX (onnx.ai), for any number of images at once."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from vesalius.errors import RunError
from vesalius.optional import require

_OPSET = 18
_MOST = 4096  # images of one call


def write_graph(network: nn.Module, example: Tensor, path: Path, *, given: str, got: str) -> Path:
    """Write the network as it answers in evaluation mode, and return `path`.

    Args:
        network: with one input and one output, whose first axes count images.
        example: an input of two or more images; its other axes are fixed in the graph.
        path: of the file.
        given: name of the input.
        got: name of the output.

    Raises:
        RunError: it has no such graph.
        MissingDependency: onnxscript is absent.
    """
    require("onnxscript", "exporting to ONNX")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own ways
        try:
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                input_names=[given],
                output_names=[got],
                dynamic_shapes=({0: torch.export.Dim("n", min=1, max=_MOST)},),
                opset_version=_OPSET,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise RunError(f"the network cannot be exported: {error}") from error
    assert program is not None  # noqa: S101 - of the exporter that was asked for
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where on this machine the code lies
    program.save(str(path))
    return path
