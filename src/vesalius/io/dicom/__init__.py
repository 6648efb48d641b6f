# SPDX-License-Identifier: Apache-2.0
"""DICOM: headers, series taken apart into stacks, stacks assembled into volumes.

Names are loaded when first used, so that reading headers alone stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesalius.io.dicom.assemble import read_series
    from vesalius.io.dicom.header import Header, read_header
    from vesalius.io.dicom.series import Stack, stacks

__all__ = ["Header", "Stack", "read_header", "read_series", "stacks"]

_ROOMS = {
    "Header": "header",
    "Stack": "series",
    "read_header": "header",
    "read_series": "assemble",
    "stacks": "series",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
