# SPDX-License-Identifier: Apache-2.0
"""Encoders from local files: safetensors weights of a network in the registry, or ONNX.

Neither format can carry code (safetensors: github.com/huggingface/safetensors; ONNX: onnx.ai),
nothing is downloaded, and a pickle is refused. An encoder has `features` and
`encode(x) -> (N, features)`; safetensors give a whole network, which can be trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vesalius.errors import RunError, UnsupportedFormat, UsageError
from vesalius.files import write_atomically
from vesalius.networks.published_names import own_names
from vesalius.networks.registry import IMAGE_NETWORKS, STEMS, build
from vesalius.types import PathLike

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vesalius.networks.image_network import ImageNetwork
    from vesalius.networks.onnx_encoder import OnnxEncoder

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar")


def load_encoder(
    path: PathLike, *, name: str | None = None, stem: str | None = None
) -> ImageNetwork | OnnxEncoder:
    """Return the encoder in a `.safetensors` or `.onnx` file, in evaluation mode.

    Args:
        path: the file.
        name: for safetensors, the architecture (one of `IMAGE_NETWORKS`), unless the file's own
            metadata name it.
        stem: for safetensors, its stem, unless the metadata do; "large" if neither says.

    Raises:
        UnsupportedFormat: a pickle, or any other suffix.
        UsageError: no name, an unknown one, or one that contradicts the metadata.
        RunError: the file cannot be read, or its tensors are not the network's; names them.
        MissingDependency: onnxruntime is absent.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix in PICKLES:
        raise UnsupportedFormat(
            f"a pickle ({suffix}) can run code when it is read: convert it once with "
            "vesalius.networks.convert_pickle.convert_pickle(source, 'weights.safetensors') and "
            "give the result",
            path=str(source),
        )
    if suffix not in (".safetensors", ".onnx"):
        raise UnsupportedFormat(
            f"an encoder is a .safetensors or .onnx file, got '{suffix or source.name}'",
            path=str(source),
        )
    if not source.is_file():
        raise RunError(f"{source}: there is no such file")
    if suffix == ".onnx":
        if name is not None or stem is not None:
            raise UsageError("name and stem are of safetensors; an ONNX file is its own network")
        from vesalius.networks.onnx_encoder import OnnxEncoder

        return OnnxEncoder(source)
    return _from_safetensors(source, name, stem)


def save_encoder(network: nn.Module, path: PathLike, *, name: str, stem: str) -> Path:
    """Write a registered network's weights, with `name` and `stem` in the file's metadata.

    `load_encoder` reads it back without further arguments.
    """
    from safetensors.torch import save

    _check_name(name, stem)
    state = {
        key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()
    }
    content = save(state, metadata={"network": name, "stem": stem})
    return write_atomically(path, lambda stream: stream.write(content))


def _from_safetensors(source: Path, name: str | None, stem: str | None) -> ImageNetwork:
    stored, metadata = _read(source)
    name = _agreed("name", name, metadata.get("network"), source)
    if name is None:
        raise UsageError(
            f"{source}: its metadata do not say which network it holds: give name, one of "
            f"{', '.join(IMAGE_NETWORKS)}"
        )
    stem = _agreed("stem", stem, metadata.get("stem"), source) or "large"
    _check_name(name, stem)
    names = own_names(name, stored)
    state = {names[key]: tensor for key, tensor in stored.items()}
    network = _network_like(state, name, stem, source)
    wanted = network.state_dict()
    if not any(key.startswith("head.") for key in state):  # an encoder needs none
        state |= {key: tensor for key, tensor in wanted.items() if key.startswith("head.")}
    for key, tensor in wanted.items():
        if key.endswith("num_batches_tracked"):  # older files have none, and nothing is read of it
            state.setdefault(key, tensor)
    _check_fit(state, wanted, source, name, stem)
    network.load_state_dict(state)
    network.eval()
    return cast("ImageNetwork", network)


def _read(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, framework="pt") as opened:
            keys = list(opened.keys())
            return {key: opened.get_tensor(key) for key in keys}, dict(opened.metadata() or {})
    except SafetensorError as error:
        raise RunError(f"{source}: is no safetensors file ({error})") from error


def _agreed(what: str, given: str | None, stored: str | None, source: Path) -> str | None:
    if given is not None and stored is not None and given != stored:
        raise UsageError(f"{source}: holds {what} '{stored}', got '{given}': leave {what} out")
    return given if stored is None else stored


def _check_name(name: str, stem: str) -> None:
    if name not in IMAGE_NETWORKS:
        raise UsageError(f"name must be one of {', '.join(IMAGE_NETWORKS)}, got '{name}'")
    if stem not in STEMS:
        raise UsageError(f"stem must be one of {', '.join(STEMS)}, got '{stem}'")


def _network_like(state: Mapping[str, Tensor], name: str, stem: str, source: Path) -> nn.Module:
    """Build the network with the channels, width and number of axes that the tensors show."""
    import torch

    with torch.device("meta"):
        model = build(name, spatial_dims=2, in_channels=1, out_channels=1, stem=stem, width=8)
    first = next(key for key, tensor in model.state_dict().items() if tensor.ndim == 4)
    if first not in state or state[first].ndim not in (4, 5):
        raise RunError(
            f"{source}: is not a {name}: it has no convolution '{first}'; its first tensors are "
            f"{', '.join(sorted(state)[:3]) or 'none'}"
        )
    head = state.get("head.weight")
    options: dict[str, Any] = {"stem": stem, "width": state[first].shape[0]}
    return build(
        name,
        spatial_dims=state[first].ndim - 2,
        in_channels=state[first].shape[1],
        out_channels=1 if head is None else head.shape[0],
        **options,
    )


def _check_fit(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path, name: str, stem: str
) -> None:
    wrong = {
        "missing": wanted.keys() - state.keys(),
        "unknown": state.keys() - wanted.keys(),
        "of another shape": {
            key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape
        },
    }
    if any(wrong.values()):
        found = "; ".join(
            f"{kind}: {', '.join(sorted(keys)[:5])}{f' and {len(keys) - 5} more' * (len(keys) > 5)}"
            for kind, keys in wrong.items()
            if keys
        )
        raise RunError(f"{source}: is not a {name} with the stem '{stem}'; {found}")
