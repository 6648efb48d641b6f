# SPDX-License-Identifier: Apache-2.0
"""Small pieces of work side by side, their answers in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_order(
    work: Callable[[Item], Answer], items: Iterable[Item], *, workers: int
) -> Iterator[Answer]:
    """Yield `work(item)` of each item in the order of the items.

    Up to `workers` items are worked on at a time, each on its share of PyTorch's threads: small
    networks use those better so than all on one item. Few items are taken ahead of what is
    yielded.

    Args:
        work: what it does alone must not depend on other items.
        items: taken one after the other, in the caller's thread.
        workers: at most; a single item has all of the threads.
    """
    import torch

    taken = iter(items)
    first = list(islice(taken, 2))
    if workers == 1 or len(first) < 2:
        yield from map(work, chain(first, taken))
        return
    threads = torch.get_num_threads()
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),)
    ) as pool:
        try:
            for item in chain(first, taken):
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)
