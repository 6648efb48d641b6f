# SPDX-License-Identifier: Apache-2.0
"""A worker for tests: answers item * 10, and kills itself on the item that its settings name."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection


def main(handle: int) -> None:
    end = Connection(handle)
    settings = end.recv()
    while True:
        try:
            _, items = end.recv()
        except EOFError:
            return
        if settings["deadly"] in items:
            os.kill(os.getpid(), signal.SIGKILL)
        end.send([item * 10 for item in items])


if __name__ == "__main__":
    main(int(sys.argv[1]))
