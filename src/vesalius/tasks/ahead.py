# SPDX-License-Identifier: Apache-2.0
"""Work that is done ahead of who uses it: images are read while the network looks at others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def ahead(
    work: Callable[[Item], Answer],
    items: Iterable[Item],
    *,
    workers: int = 2,
    most: int = 16,
    begin: Callable[[], object] | None = None,
) -> Iterator[Answer]:
    """Yield `work(item)` of each item in the order of the items; at most `most` wait to be taken.

    Args:
        work: what it does must not depend on other items.
        items: taken one after the other, in the caller's thread.
        workers: threads.
        most: answers that are held.
        begin: called once in each thread before its work.
    """
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
