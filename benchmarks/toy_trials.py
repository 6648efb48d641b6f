# SPDX-License-Identifier: Apache-2.0
"""Toy trials for benchmarks of searches; their processes import next to nothing."""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

NODE = "VESALIUS_NODE"  # the variable that tells a node's processes its number


def count(payload: dict[str, Any]) -> dict[str, Any]:
    """Count as far as the payload says, on one core."""
    begun = time.monotonic()
    left = payload["count"]
    while left:
        left -= 1
    return {"values": {"auc": payload["x"]}, "facts": {"inside": time.monotonic() - begun}}


def sleep(payload: dict[str, Any]) -> dict[str, Any]:
    """Sleep as long as the point says, and three times as long on each rung."""
    drawn = NormalDist().inv_cdf((payload["x"] * 7919) % 1 or 0.5)
    time.sleep(payload["seconds"] * math.exp(0.4 * drawn) * 3 ** payload["rung"])
    return {"values": {"auc": payload["x"]}}


def leave(payload: dict[str, Any]) -> dict[str, Any]:
    """Take a moment, leave a file in an object store, return what the point is worth."""
    from vesalius.tuning.object_store import ObjectStore

    time.sleep(payload["seconds"])
    with tempfile.TemporaryDirectory() as held:
        (Path(held) / "made").write_bytes(made(payload["number"]))
        store = ObjectStore(payload["url"], payload["endpoint"])
        store.put(f"trial-{payload['number']}", Path(held))
    values = {"auc": quality(payload["x"], payload["rung"])}
    return {"values": values, "facts": {"node": os.environ[NODE]}}


def made(number: int) -> bytes:
    """Return what the trial of a number leaves."""
    return f"trial {number}\n".encode() * 1000


def quality(x: float, rung: int) -> float:
    """Return what a point is worth at a rung of three."""
    return 1 - (x - 0.3) ** 2 - 0.1 * (2 - rung)
