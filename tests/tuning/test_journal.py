# SPDX-License-Identifier: Apache-2.0
"""The journal: nothing acknowledged is lost, a torn end is cut off, damage is never guessed at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import RunError, UsageError
from vesalius.tuning.journal import Journal, read_journal

_VALUES = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("event", "self")),
    st.one_of(st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    max_size=4,
)


@settings(deadline=None, max_examples=40)
@given(st.lists(_VALUES, max_size=6), st.data())
def test_a_tear_anywhere_in_the_last_line_costs_that_line_alone(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    with Journal(path) as journal:
        for number, values in enumerate(events):
            journal.append("one", number=number, **{f"_{k}": v for k, v in values.items()})
        written = journal.events
    assert read_journal(path) == written
    content = path.read_bytes()
    if not events:
        return
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    cut = data.draw(st.integers(start, len(content) - 1))
    path.write_bytes(content[:cut])
    assert read_journal(path) == written[:-1]
    with Journal(path) as journal:
        assert journal.events == written[:-1]
        journal.append("after")
    assert read_journal(path)[-1] == {"event": "after"}


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.append("one", number=number)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"line 1 .* is damaged"):
        Journal(path)
    with pytest.raises(RunError, match="is no search"):
        read_journal(tmp_path / "elsewhere" / "journal.jsonl")


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path), pytest.raises(UsageError, match="another process"):
        Journal(path)
    Journal(path).close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from vesalius.tuning.journal import Journal\n"
        "with Journal(Path(sys.argv[1])) as journal:\n"
        "    for number in range(10**6):\n"
        "        journal.append('one', number=number)\n"
        "        os.write(1, b'%d\\n' % number)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(50):
        child.stdout.readline()
    child.kill()
    said = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    last = int(said[-1]) if said else 49
    numbers = [event["number"] for event in read_journal(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > last  # what was said is there


def test_a_full_disk_leaves_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    whole = os.write
    with Journal(path) as journal:
        journal.append("one")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda handle, line: whole(handle, line[:5]))
            with pytest.raises(OSError, match="the disk took 5 of"):
                journal.append("two")
        journal.append("three")
    assert [event["event"] for event in read_journal(path)] == ["one", "three"]
