# SPDX-License-Identifier: Apache-2.0
"""A pickle of weights (`torch.save`) turned into safetensors, by a bounded child process.

A pickle is a program (docs.python.org/3/library/pickle). The child reads it with `weights_only`,
which knows tensors and plain containers and no other names, under a limit of memory and time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.types import PathLike

_FACTOR, _MARGIN = 4, 256 * 2**20  # memory by default: so many times the file, and so many bytes
_START = 60.0  # seconds that the child may take to import PyTorch, on top of `seconds`


def convert_pickle(
    source: PathLike,
    target: PathLike,
    *,
    entry: str | None = None,
    prefix: str = "",
    memory: int | None = None,
    seconds: float = 120.0,
) -> Path:
    """Read a pickle's tensors and write them to `target`, a new `.safetensors` file.

    Args:
        source: what `torch.save` wrote: a state dict, or a dict that holds state dicts.
        target: the file to write; its folder must exist, the file must not.
        entry: which of several state dicts, for example "state_dict" or "ema".
        prefix: keep only names that start so, without it, for example "module.".
        memory: bytes the child may take above its libraries; four times the file and 256 MiB
            by default. Held on Linux only.
        seconds: how long reading and writing may take.

    Raises:
        UsageError: `target` exists or is named otherwise.
        RunError: the file holds anything but tensors, several state dicts, or is broken.
        BudgetError: `memory` or `seconds` do not suffice.
    """
    origin, goal = Path(source).absolute(), Path(target).absolute()
    if not origin.is_file():
        raise RunError(f"{source}: there is no such file")
    if goal.suffix != ".safetensors":
        raise UsageError(f"target must be a .safetensors file, got '{goal.name}'")
    if goal.exists():
        raise UsageError(f"{target}: exists already: name a new file")
    if memory is None:
        memory = _FACTOR * origin.stat().st_size + _MARGIN
    job = {
        "source": str(origin),
        "target": str(goal),
        "entry": entry,
        "prefix": prefix,
        "memory": memory,
        "seconds": seconds,
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "vesalius.networks.pickle_worker"],
            input=json.dumps(job).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=seconds + _START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BudgetError(_too_slow(source, seconds)) from None
    answer = json.loads(done.stdout) if done.returncode == 0 else {"why": ""}
    if answer["why"] is None:
        return Path(target)
    if answer["why"] == "time":
        raise BudgetError(_too_slow(source, seconds))
    if answer["why"] == "memory":
        raise BudgetError(
            f"{source}: reading needs more than {memory / 2**20:.0f} MiB: give more memory, if you "
            "trust the file"
        )
    why = answer["why"] or f"reading it ended the child process (status {done.returncode})"
    raise RunError(f"{source}: {why}")


def _too_slow(source: PathLike, seconds: float) -> str:
    return (
        f"{source}: reading took more than {seconds:g} s: give more seconds, if you trust the file"
    )
