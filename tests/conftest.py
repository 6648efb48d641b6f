# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share: where real data lie, and quiet threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def data() -> Callable[[str], Path]:
    """Return `data(name)`: the path of a set below VESALIUS_DATA; skips, by name, where absent."""

    def locate(name: str) -> Path:
        root = os.environ.get("VESALIUS_DATA")
        path = Path(root or "/nonexistent") / name
        if not path.exists():
            pytest.skip(f"data set '{name}' is absent (set VESALIUS_DATA)")
        return path

    return locate
