# SPDX-License-Identifier: Apache-2.0
"""A graph in ONNX as OpenVINO's intermediate representation, `.xml` and `.bin`."""

from __future__ import annotations

from pathlib import Path

from vesalius.optional import require_silent


def write_openvino(graph: Path, path: Path) -> Path:
    """Convert `graph` (`.onnx`), write `path` (`.xml`) with its weights beside it, return `path`.

    Weights stay at 32 bits.

    Raises:
        MissingDependency: openvino is absent.
    """
    openvino = require_silent("openvino", "exporting to OpenVINO")
    openvino.save_model(openvino.Core().read_model(str(graph)), str(path), compress_to_fp16=False)
    return path
