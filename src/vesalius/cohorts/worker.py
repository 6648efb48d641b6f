# SPDX-License-Identifier: Apache-2.0
"""A worker process: answers tasks until its socket closes. That of `scan` parses and reads.

Run as `python -m vesalius.cohorts.worker FD` by `cohorts.pool`. That of `scan` writes nothing to
disk; others hand `serve` an answer of their own.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def serve(handle: int, answer: Callable[[str, list[Any], Any], Any]) -> None:
    """Answer tasks `(kind, items)` with a list of results, or the exception that stopped it.

    Args:
        handle: file descriptor of the socket.
        answer: called as `answer(kind, items, settings)`; settings are the first message.
    """
    end = Connection(handle)
    gc.set_threshold(100_000)  # headers come by the thousand and hold no cycles
    try:
        settings = end.recv()
        while True:
            kind, items = end.recv()
            end.send(answer(kind, items, settings))
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return  # the scan has ended, or was killed


def _answer(kind: str, items: list[Any], settings: Any) -> Any:
    try:
        if kind == "parse":
            from vesalius.cohorts.parsing import parse

            return [parse(item, settings) for item in items]
        from vesalius.cohorts.rows import make_rows

        return [make_rows(item, settings) for item in items]
    except Exception as error:  # a defect of ours: the scan raises it where a person sees it
        return error


if __name__ == "__main__":
    serve(int(sys.argv[1]), _answer)
