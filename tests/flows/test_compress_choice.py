# SPDX-License-Identifier: Apache-2.0
"""The student is the most able network that is fast and small enough, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from vesalius.errors import RunError, UsageError
from vesalius.flows.compressing import choice
from vesalius.flows.compressing.choice import Candidate, Limits, Teacher, choose

TEACHER = Teacher(lambda _: None, 50_000_000, [0], reading=0.001)
SECONDS = {"wide": 0.03, "middle": 0.004, "narrow": 0.001}  # the teacher takes 0.1
BYTES = {"wide": 5_000_000, "middle": 4_000_000, "narrow": 1_000_000}


@pytest.fixture(autouse=True)
def _timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "seconds_of", lambda _, one: (0.1, SECONDS[one.name]))


def candidates(*names: str) -> Iterator[Candidate]:
    for name in names or SECONDS:
        yield Candidate(name, {"name": name}, BYTES[name], lambda _: None)


def test_the_most_able_network_that_is_five_times_faster_is_taken() -> None:
    found = choose(TEACHER, candidates(), Limits())
    assert found.candidate.name == "middle"
    assert "middle" in found.lines[0]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(0.004, None), "narrow"),
        (Limits(None, 2_000_000), "narrow"),
        (Limits(0.05, 10_000_000), "middle"),
    ],
)
def test_limits_are_kept(limits: Limits, name: str) -> None:
    assert choose(TEACHER, candidates(), limits).candidate.name == name


def test_limits_alone_suffice_where_nothing_is_five_times_faster() -> None:
    assert choose(TEACHER, candidates("wide"), Limits(0.05)).candidate.name == "wide"
    found = choose(TEACHER, candidates("wide"), Limits())
    assert "no network is 5 times as fast as this teacher" in found.lines[0]
    with pytest.raises(RunError, match=r"takes 4\.0 MB, and no network of ours is 5 times smaller"):
        choose(replace(TEACHER, bytes=4_000_000), candidates(), Limits())


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(0.0001, None), "keeps 0.1 ms: .* 2.0 ms, of which 1.0 ms read"),
        (Limits(None, 1000), "keeps 0.001 MB: .* 1.0 MB"),
    ],
)
def test_impossible_limits_are_refused_with_what_is_possible(limits: Limits, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose(TEACHER, candidates(), limits)


def test_what_comes_after_reading_is_compared_only_where_reading_takes_too_long() -> None:
    slower = replace(TEACHER, reading=0.015)  # of "middle" the whole would be 115 / 19 times faster
    assert choose(slower, candidates(), Limits()).candidate.name == "middle"
    between = replace(TEACHER, reading=0.017)  # 117 / 21 are too few; "narrow" has 117 / 18
    assert choose(between, candidates(), Limits()).candidate.name == "narrow"
    slowest = replace(TEACHER, reading=0.1)
    found = choose(slowest, candidates(), Limits())
    assert found.candidate.name == "middle"
    assert "reading and preparing a case takes 100.0 ms" in found.lines[0]
