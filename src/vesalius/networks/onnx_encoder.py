# SPDX-License-Identifier: Apache-2.0
"""A frozen encoder in an ONNX file (onnx.ai), run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vesalius.errors import RunError, UsageError
from vesalius.optional import require
from vesalius.types import PathLike

_PROBE = {2: 224, 3: 64}  # size an axis of the first call, where the file leaves it open
_INPUTS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class OnnxEncoder:
    """Embeddings of images by an ONNX network with one input `(N, C, i, j)` or `(N, C, i, j, k)`.

    It has no gradient and no head. Where its output has places, `(N, features, ...)`, they are
    averaged.

    Attributes:
        features: numbers per image.
        spatial_dims: 2 or 3.
        in_channels: channels of an image.
        size: voxels an axis that images must have, None where any size is taken.

    Args:
        path: the file.
        output: name of the output that holds the embedding; needed only where there are several.
        in_channels: needed only where the file leaves the number of channels open.

    Raises:
        RunError: the file cannot be run, or is no image encoder; says why.
        UsageError: `output` or `in_channels` is needed, or contradicts the file.
        MissingDependency: onnxruntime is absent.
    """

    def __init__(
        self, path: PathLike, *, output: str | None = None, in_channels: int | None = None
    ) -> None:
        self.path = Path(path)
        self._session = _open(self.path)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) not in (4, 5) or inputs[0].type not in _INPUTS:
            seen = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
            raise RunError(
                f"{self.path}: an image encoder has one float input (N, C, i, j) or "
                f"(N, C, i, j, k), got {seen or 'none'}"
            )
        self._input = inputs[0]
        batch, channels, *sizes = (n if isinstance(n, int) else None for n in inputs[0].shape)
        self._batch: int | None = batch
        self.spatial_dims = len(sizes)
        self.size: tuple[int | None, ...] = tuple(sizes)
        self.in_channels = _channels(self.path, channels, in_channels)
        self._output = _choose(
            self.path, [item.name for item in self._session.get_outputs()], output
        )
        probe = [length or _PROBE[self.spatial_dims] for length in self.size]
        with torch.no_grad():
            self.features = self.encode(torch.zeros(1, self.in_channels, *probe)).shape[1]

    def encode(self, x: Tensor) -> Tensor:
        """Return one embedding per image: `(N, in_channels, ...)` -> `(N, features)`, float32.

        Raises:
            UsageError: images of other channels, axes or size than the file takes.
            RunError: the network fails on them.
        """
        self._check(x)
        step = self._batch or max(len(x), 1)
        parts = [self._run(x[start : start + step]) for start in range(0, len(x), step)]
        if not parts:
            return x.new_zeros(0, self.features, dtype=torch.float32)
        return torch.cat(parts).to(x.device)

    def _run(self, x: Tensor) -> Tensor:
        count = len(x)
        if self._batch and count < self._batch:  # the file takes whole batches only
            x = functional.pad(x, [0, 0] * (x.ndim - 1) + [0, self._batch - count])
        array = x.detach().to("cpu", _INPUTS[self._input.type]).contiguous().numpy()
        try:
            (result,) = self._session.run([self._output], {self._input.name: array})
        except Exception as error:  # its errors share no other base
            raise RunError(f"{self.path}: fails on {tuple(x.shape)}: {error}") from error
        maps = torch.from_numpy(result).float()
        if maps.ndim < 2 or len(maps) != len(x):
            raise RunError(
                f"{self.path}: '{self._output}' must be (N, features) or (N, features, ...), got "
                f"{tuple(maps.shape)} for {len(x)} images"
            )
        return (maps.flatten(2).mean(2) if maps.ndim > 2 else maps)[:count]

    def _check(self, x: Tensor) -> None:
        wanted = (self.in_channels, *self.size)
        seen = tuple(x.shape[1:])
        if len(seen) != len(wanted) or any(
            length not in (None, given) for length, given in zip(wanted, seen, strict=True)
        ):
            form = ", ".join("any" if length is None else str(length) for length in wanted)
            raise UsageError(
                f"{self.path}: takes images of shape ({form}), got {seen}: resample them"
            )


def _open(path: Path) -> Any:
    runtime = require("onnxruntime", "an encoder in ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what fails is raised; no warnings on the terminal
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise RunError(f"{path}: ONNX Runtime cannot open it ({error})") from error


def _channels(path: Path, stored: int | None, given: int | None) -> int:
    if stored is not None and given is not None and stored != given:
        raise UsageError(f"{path}: takes {stored} channels, got in_channels={given}")
    channels = stored or given
    if channels is None:
        raise UsageError(f"{path}: leaves the number of channels open: give in_channels")
    return channels


def _choose(path: Path, names: list[str], given: str | None) -> str:
    if given is None and len(names) == 1:
        return names[0]
    if given not in names:
        raise UsageError(f"{path}: output must be one of {', '.join(names)}, got {given}")
    return given
