# SPDX-License-Identifier: Apache-2.0
"""Work done ahead: in order, bounded, errors at their place, nothing left running."""

from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from vesalius.tasks.ahead import ahead


def test_answers_come_in_order_and_few_are_held() -> None:
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    found = ahead(lambda n: n * n, items(), most=4)
    assert list(islice(found, 5)) == [0, 1, 4, 9, 16]
    assert len(taken) <= 9
    found.close()
    assert list(ahead(str, range(40), most=3)) == [str(n) for n in range(40)]
    assert list(ahead(str, [])) == []


def test_it_is_done_beside_the_caller() -> None:
    threads = set(ahead(lambda _: threading.get_ident(), range(8)))
    assert threading.get_ident() not in threads


def test_an_error_comes_where_its_item_stands() -> None:
    found = ahead(lambda n: 1 // n, [1, 1, 0, 1])
    assert [next(found), next(found)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
