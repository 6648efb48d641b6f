# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the reading and writing tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
