# SPDX-License-Identifier: Apache-2.0
"""A network in a file, run on the CPU by ONNX Runtime (`.onnx`) or by OpenVINO (`.xml`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.errors import RunError
from vesalius.optional import require, require_silent
from vesalius.types import Array

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}  # engine -> what its networks' files end in


class EngineNetwork(nn.Module):
    """Answers `(N, C, ...)` as the network in the file does, float32, on the device of its input.

    It has no weights in PyTorch and no gradient. It takes as many threads as PyTorch may.

    Args:
        path: of a network with one input and one output; of OpenVINO the `.bin` lies beside it.
        half: compute in bfloat16 where the processor does so natively (OpenVINO; ONNX Runtime has
            no such convolutions and stays at 32 bits).

    Raises:
        RunError: the engine cannot open the file.
        MissingDependency: the engine is not installed.
    """

    def __init__(self, path: Path, *, half: bool) -> None:
        super().__init__()
        self.path = path
        openvino = path.suffix == SUFFIXES["openvino"]
        self._run = _openvino(path, half=half) if openvino else _onnx_runtime(path)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network answers.

        Raises:
            RunError: the engine fails on the input.
        """
        given = x.detach().to("cpu", torch.float32).contiguous().numpy()
        try:
            answer = self._run(given)
        except Exception as error:  # the engines' errors share no other base
            raise RunError(f"{self.path}: fails on {tuple(x.shape)}: {error}") from error
        return torch.from_numpy(answer).to(x.device)


def _onnx_runtime(path: Path) -> Callable[[Array], Array]:
    runtime = require("onnxruntime", "a network in ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what fails is raised; no warnings on the terminal
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise RunError(f"{path}: ONNX Runtime cannot open it ({error})") from error
    (name,) = (item.name for item in session.get_inputs())

    def run(x: Array) -> Array:
        answer: Array = session.run(None, {name: x})[0]
        return answer

    return run


def _openvino(path: Path, *, half: bool) -> Callable[[Array], Array]:
    openvino = require_silent("openvino", "a network of OpenVINO")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
    }
    try:
        model = openvino.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise RunError(f"{path}: OpenVINO cannot open it ({error})") from error

    own = threading.local()  # a request answers one thread at a time

    def run(x: Array) -> Array:
        if not hasattr(own, "request"):
            own.request = model.create_infer_request()
        # The engine writes its next answer into the same memory.
        return np.array(own.request.infer([x], share_inputs=True)[0])

    return run
