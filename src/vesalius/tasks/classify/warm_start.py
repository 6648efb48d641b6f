# SPDX-License-Identifier: Apache-2.0
"""Beginning with the weights of another run's network: for new data, a new target, more steps."""

from __future__ import annotations

from torch import Tensor, nn

from vesalius.errors import RunError
from vesalius.tasks.run import Run
from vesalius.types import Json, PathLike


def network_weights(path: PathLike, spec: Json, target: Json) -> dict[str, Tensor]:
    """Return the tensors of the run's network of the same architecture as `spec`.

    The head comes along where the target is the same, what it learned of facts where these are.

    Raises:
        RunError: the run keeps no such network; it says which it has.
    """
    run = Run.load(path)
    networks = [m for m in run.plan["measured"].get("members", ()) if m["kind"] == "network"]
    fits = [m for m in networks if _shape(m["spec"]) == _shape(spec)]
    if not fits:
        names = ", ".join(str(_shape(m["spec"])) for m in networks) or "no network at all"
        raise RunError(
            f"the run '{run.path}' keeps {names}, and this plan trains {_shape(spec)}; choose the "
            "same --model for both"
        )
    name = f"{fits[0]['name']}/"
    held = {k.removeprefix(name): t for k, t in run.weights().items() if k.startswith(name)}
    left: tuple[str, ...] = () if fits[0]["spec"]["facts"] == spec["facts"] else ("facts.",)
    left += () if run.decisions["target"] == target else ("encoder.head.",)
    return {key: tensor for key, tensor in held.items() if not key.startswith(left)}


def begin_with(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy every tensor of the same name and shape; heads of another target stay as they are."""
    own = model.state_dict()
    fitting = {k: t for k, t in tensors.items() if k in own and own[k].shape == t.shape}
    model.load_state_dict({**own, **fitting})


def _shape(spec: Json) -> tuple[str, int, int, str]:
    network = spec["network"]
    options = ", ".join(f"{k}={v}" for k, v in sorted(network["options"].items()))
    return network["name"], network["spatial_dims"], network["in_channels"], options
