# SPDX-License-Identifier: Apache-2.0
"""Small pieces of work side by side, their answers in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from vesalius.tasks.ahead import ahead

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
    share = partial(torch.set_num_threads, max(1, threads // workers))
    try:
        yield from ahead(work, chain(first, taken), workers=workers, most=workers + 1, begin=share)
    finally:
        torch.set_num_threads(threads)
