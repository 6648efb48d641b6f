# SPDX-License-Identifier: Apache-2.0
"""Type aliases over builtins and arrays; nothing here imports another room."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

PathLike: TypeAlias = str | os.PathLike[str]
Array: TypeAlias = NDArray[Any]
Affine: TypeAlias = NDArray[np.float64]  # (4, 4), voxel index -> RAS+ millimeters
Shape3: TypeAlias = tuple[int, int, int]
Spacing3: TypeAlias = tuple[float, float, float]  # millimeters along i, j, k
Task: TypeAlias = Literal["classify", "segment", "detect", "retrieve"]
Subset: TypeAlias = Literal["train", "val", "test", "calibration"]
Json: TypeAlias = dict[str, Any]
# progress(stage, done, total): total is None while it is not known
Progress: TypeAlias = Callable[[str, int, int | None], None]
