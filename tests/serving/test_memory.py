# SPDX-License-Identifier: Apache-2.0
"""A worker's memory: kept by the kernel, and said in words where it does not suffice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vesalius.errors import BudgetError, UsageError
from vesalius.serving import memory

CHILD = """
import numpy
from vesalius.serving.memory import bound, within
bound(256 << 20)
held = numpy.ones(150 << 20, numpy.uint8)
try:
    with within(256 << 20):
        numpy.ones(200 << 20, numpy.uint8)
except Exception as error:
    print(type(error).__name__, error)
del held
print(int(numpy.ones(200 << 20, numpy.uint8).sum()))
"""


def test_more_than_the_budget_is_refused_and_the_process_lives_on():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "BudgetError the study needs more memory than the 256 MiB of a worker (--worker-memory)",
        str(200 << 20),
    ]


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), memory.within(None):
        raise RuntimeError("shape mismatch")
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried"),
                  RuntimeError("CUDA out of memory.")):  # fmt: skip
        with pytest.raises(BudgetError, match="more memory than there is"), memory.within(None):
            raise error


def test_the_budget_is_remembered(state):
    assert memory.chosen(state) is None
    memory.remember(state, 1 << 30)
    assert memory.chosen(state) == 1 << 30
    memory.remember(state, None)
    assert memory.chosen(state) is None
    assert memory.check(None) is None
    with pytest.raises(UsageError, match="256 MiB at least"):
        memory.check(1 << 20)
