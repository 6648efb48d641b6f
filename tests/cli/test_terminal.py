# SPDX-License-Identifier: Apache-2.0
"""What a person meets on the terminal: sizes, durations, progress lines, plain tables."""

from __future__ import annotations

import pytest

from vesalius.cli import terminal
from vesalius.errors import UsageError


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 << 20), ("1.5kib", 1536), ("800", 800), ("7B", 7)],
)
def test_sizes_are_parsed(text: str, count: int) -> None:
    assert terminal.byte_count(text) == count


@pytest.mark.parametrize("text", ["", "many", "4 parsecs", "GB"])
def test_wrong_sizes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="for example 4GB"):
        terminal.byte_count(text)


@pytest.mark.parametrize(("seconds", "shown"), [(4.21, "4.2 s"), (185, "3:05"), (7385, "2:03:05")])
def test_durations_read_naturally(seconds: float, shown: str) -> None:
    assert terminal.clock(seconds) == shown


def test_piped_progress_ends_each_stage_with_one_plain_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = terminal.Progress()
    for done in range(1, 101):
        progress("reading", done, 100)
    progress("writing", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines if " in " in line] == [
        "reading: 100 of 100",
        "writing: 1 of 1",
    ]


def test_piped_tables_are_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say_table(["a", "b"], [(1, "x\ty")])
    assert capsys.readouterr().out == "a\tb\n1\tx y\n"
