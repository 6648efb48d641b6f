# SPDX-License-Identifier: Apache-2.0
"""The state from which training resumes: one safetensors file, replaced as a whole.

Model and optimizer tensors lie in the file, everything else as JSON in its header; so the state
is never a mixture of two moments, and loading it never unpickles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import RunError
from vesalius.files import write_atomically
from vesalius.types import Json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MODEL = "model."
AVERAGE = "average."
OPTIMIZER = "optimizer."


def save_tensors(path: Path, tensors: dict[str, Tensor], record: Json) -> None:
    """Write named tensors and a JSON record atomically and durably."""
    from safetensors.torch import save

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(held, {"record": json.dumps(record, allow_nan=False)})
    write_atomically(path, lambda stream: stream.write(content))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Json]:
    """Read what `save_tensors` wrote.

    Raises:
        RunError: the file is absent, or no safetensors file with a record.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            record = json.loads((stream.metadata() or {})["record"])
            return {name: stream.get_tensor(name) for name in stream.keys()}, record  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(
            f"'{path.name}' of the run '{path.parent.name}' cannot be read ({error}); "
            "train it again in the same folder"
        ) from error


def save_model(path: Path, model: nn.Module, record: Json) -> None:
    """Write a model's weights and buffers."""
    save_tensors(path, model.state_dict(), record)


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    record: Json,
    average: nn.Module,
) -> None:
    """Write everything from which `load_state` continues.

    `average` is the running mean of the model, or the model itself where there is none.
    """
    tensors = {MODEL + name: value for name, value in model.state_dict().items()}
    if average is not model:
        tensors |= {AVERAGE + name: value for name, value in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"{OPTIMIZER}{number}.{name}"] = value
    save_tensors(path, tensors, record)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module
) -> Json:
    """Load model, optimizer and running mean in place and return the record."""
    tensors, record = load_tensors(path)
    for start, module in ((MODEL, model), (AVERAGE, average)):
        if start == MODEL or average is not model:
            module.load_state_dict(
                {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
            )
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith(OPTIMIZER):
            number, key = name[len(OPTIMIZER) :].split(".", 1)
            state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return record
