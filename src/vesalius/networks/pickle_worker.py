# SPDX-License-Identifier: Apache-2.0
"""The child process of `convert_pickle`: a job from standard input, an answer to standard output.

The job and the answer are one JSON object each; the answer's `why` is None for success, "memory"
or "time" for a bound that was met, or a sentence.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vesalius.files import write_atomically
from vesalius.types import PathLike

if TYPE_CHECKING:
    from torch import Tensor


class Refusal(Exception):
    """The file is read and is not what it should be."""


def main() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    why: str | None = None
    try:
        import torch  # noqa: F401 - what libraries take is not the file's to pay
        from safetensors.torch import save

        _bound(job["memory"], job["seconds"])
        tensors = state_dict(tensors_only(job["source"]), job["entry"], job["prefix"])
        content = save(tensors)
        write_atomically(job["target"], lambda stream: stream.write(content))
    except MemoryError:
        why = "memory"
    except RuntimeError as error:  # what PyTorch says when an allocation fails
        if "allocate" not in str(error):
            raise
        why = "memory"
    except TimeoutError:
        why = "time"
    except Refusal as error:
        why = str(error)
    signal.alarm(0)
    answers.write(json.dumps({"why": why}))
    answers.flush()


def state_dict(content: Any, entry: str | None, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of one state dict in `content`, contiguous and each with its own memory.

    A dict whose values include tensors is itself one; otherwise its entries are looked through.

    Raises:
        Refusal: there is none, or several.
    """
    import torch

    if not isinstance(content, Mapping):
        raise Refusal(f"it holds a {type(content).__name__}, and should hold a dict of tensors")
    if entry is not None:
        if not isinstance(content.get(entry), Mapping):
            raise Refusal(f"it has no dict '{entry}', only {_listed(content)}")
        content = content[entry]
    if not _tensors(content):
        inner = [key for key, value in content.items() if _tensors(value)]
        if len(inner) != 1:
            raise Refusal(
                f"it holds {len(inner)} state dicts ({_listed(inner)}): name one by entry"
                if inner
                else f"it holds no tensors, only {_listed(content)}"
            )
        content = content[inner[0]]
    found = {
        str(key).removeprefix(prefix): tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in content.items()
        if isinstance(tensor, torch.Tensor) and str(key).startswith(prefix)
    }
    if not found:
        raise Refusal(f"no tensor's name starts with '{prefix}'; there are {_listed(content)}")
    return found


def _tensors(value: Any) -> bool:
    import torch

    return isinstance(value, Mapping) and any(isinstance(v, torch.Tensor) for v in value.values())


def _listed(names: Any) -> str:
    return ", ".join(str(name)[:60] for name in list(names)[:5]) or "nothing"


def tensors_only(source: PathLike) -> Any:
    """Return what a pickle holds, if that is tensors, numbers, texts and plain containers.

    Raises:
        Refusal: it is anything else, or no pickle.
    """
    import torch

    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except (MemoryError, TimeoutError):
        raise
    except Exception as error:  # whatever is wrong with the file, it is refused
        if "allocate" in str(error):
            raise
        foreign = re.search(r"GLOBAL (\S{1,80})", str(error))
        raise Refusal(
            f"it holds {foreign[1]}, which is no tensor: where it was made, save the state dict "
            "alone"
            if foreign
            else "it is no file of PyTorch tensors, or a broken one"
        ) from error


def _bound(memory: int, seconds: float) -> None:
    """Allow `memory` bytes of address space above the present, and `seconds` until the end."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(max(1, round(seconds)))
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as statm:
            present = int(statm.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (present + memory, hard))


def _late(*_: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main()
