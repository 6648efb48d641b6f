# SPDX-License-Identifier: Apache-2.0
"""What the tests of executors call in processes of their own; milliseconds each."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def toy(payload: dict) -> dict:
    """Do what the payload says and return its quality."""
    deed = payload.get("deed", "")
    if "count" in payload:  # how often this was begun
        with open(payload["count"], "a") as stream:
            stream.write("x")
    begun = len(Path(payload["count"]).read_text()) if "count" in payload else 1
    if deed == "sleep":
        time.sleep(payload["seconds"])
    if deed == "burn":  # all that there is of its core, deaf to everything
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end = time.monotonic() + payload["seconds"]
        while time.monotonic() < end:
            pass
    if deed == "crash":
        raise ValueError("a toy that breaks")
    if deed == "refuse":
        from vesalius.errors import UsageError

        raise UsageError("a toy that says no")
    if deed == "exit":
        os._exit(3)
    if deed == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if deed == "memory":
        bytearray(payload["bytes"])
    if deed == "killed" or (deed == "killed once" and begun == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"values": {"auc": payload.get("auc", 0.5)}, "facts": {"pid": os.getpid()}}
