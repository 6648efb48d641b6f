# SPDX-License-Identifier: Apache-2.0
"""A trial's own process: `python -m vesalius.tuning.child FOLDER HEAD`.

It calls the function that `job.json` in the folder names and writes `result.json`, whole or not at
all. It ends with the head, the process that began it, so that no trial runs which nobody waits for.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from vesalius.errors import VesaliusError
from vesalius.files import read_json, write_json
from vesalius.tuning.lock import alone
from vesalius.types import Json

JOB, RESULT = "job.json", "result.json"
_WATCH = 0.5  # seconds between looks at whether the head lives
_TOO_LITTLE = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate")


def main(folder: Path, head: int) -> None:
    """Do the job of a folder."""
    threading.Thread(target=_end_with, args=(head,), daemon=True).start()
    with alone(folder):  # the process of an earlier head may still be dying
        job: Json = read_json(folder / JOB)
        if job["memory"] is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (job["memory"], job["memory"]))
        begun = time.monotonic()
        ended = _do(job)
        ended |= {"attempt": job["attempt"], "seconds": round(time.monotonic() - begun, 3)}
        write_json(folder / RESULT, ended)


def _do(job: Json) -> Json:
    """Return how the job ended, and its result."""
    module, _, name = job["function"].partition(":")
    try:
        result: Any = getattr(importlib.import_module(module), name)(job["payload"])
    except VesaliusError as error:
        return {"ending": "refused", "result": None, "reason": str(error)}
    except Exception as error:  # whatever a trial does, the search learns of it
        traceback.print_exc()
        short = isinstance(error, MemoryError) or any(
            words in str(error).lower() for words in _TOO_LITTLE
        )
        said = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {said[0] if said else 'no reason given'}"
        return {"ending": "memory" if short else "crashed", "result": None, "reason": reason}
    return {"ending": "done", "result": result, "reason": ""}


def _end_with(head: int) -> None:
    while os.getppid() == head:
        time.sleep(_WATCH)
    os.killpg(0, signal.SIGKILL)  # with whatever this process began


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
