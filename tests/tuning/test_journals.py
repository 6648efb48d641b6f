# SPDX-License-Identifier: Apache-2.0
"""Every journal, a file or in a database, keeps what the protocol promises."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.postgres_server import Server

from vesalius.errors import RunError, UnavailableError, UsageError
from vesalius.tuning import postgres_journal
from vesalius.tuning.journal import Journal, read_journal
from vesalius.tuning.loop import trials_of
from vesalius.tuning.postgres_journal import PostgresJournal, check_url, read_postgres
from vesalius.tuning.protocol import EventLog
from vesalius.tuning.trial import Trial

_NUMBERS = itertools.count()


class Kind:
    """A journal that is not there yet: how it is opened, here and elsewhere, and read."""

    def __init__(self, code: str, opened: Callable[[], EventLog], read: Callable[[], list]) -> None:
        self.code, self.open, self.read = code, opened, read


@pytest.fixture(params=["file", "postgres"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "file":
        path = tmp_path / "journal.jsonl"
        code = f"from vesalius.tuning.journal import Journal as J\nat = lambda: J(P({str(path)!r}))"
        return Kind(code, lambda: Journal(path), lambda: read_journal(path))
    url, name = request.getfixturevalue("database").url, f"search-{next(_NUMBERS)}"
    code = (
        "from vesalius.tuning.postgres_journal import PostgresJournal as J\n"
        f"at = lambda: J({url!r}, {name!r})"
    )
    return Kind(code, lambda: PostgresJournal(url, name), lambda: read_postgres(url, name))


def child(kind: Kind, body: str) -> subprocess.Popen[bytes]:
    """Start a process that runs `body` with `journal` open."""
    code = f"import os, time\nfrom pathlib import Path as P\n{kind.code}\nwith at() as journal:\n"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return subprocess.Popen([sys.executable, "-c", code + lines], stdout=subprocess.PIPE)


def test_what_is_appended_is_there_in_order_and_after_reopening(kind: Kind) -> None:
    texts = ["plain", "naïve 日本 \u2028", 'quotes " and \\', "", "x" * 70_000]
    with kind.open() as journal:
        assert journal.events == []
        for number, text in enumerate(texts):
            journal.append("one", number=number, text=text, share=number / 7, deep={"a": [None]})
            assert kind.read() == journal.events  # while it is open
        before = list(journal.events)
    assert [event["text"] for event in before] == texts
    with kind.open() as journal:
        assert journal.events == before
        journal.append("after")
    assert kind.read() == [*before, {"event": "after"}]


def test_what_is_no_json_changes_nothing(kind: Kind) -> None:
    with kind.open() as journal:
        journal.append("one")
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append("two", value=float("nan"))
        journal.append("three")
    assert [event["event"] for event in kind.read()] == ["one", "three"]


def test_a_second_head_is_refused_as_long_as_the_first_lives(kind: Kind) -> None:
    with kind.open() as journal:
        journal.append("ours")
        with pytest.raises(UsageError, match="another process"):
            kind.open()
        journal.append("ours still")
    with kind.open() as journal:
        assert len(journal.events) == 2


def test_kill_9_loses_nothing_that_was_acknowledged_and_gives_the_lock_back(kind: Kind) -> None:
    head = child(
        kind,
        "for number in range(10**6):\n"
        "    journal.append('one', number=number, text='x' * 300)\n"
        "    os.write(1, b'%d\\n' % number)",
    )
    assert head.stdout is not None
    said = b""
    while said.count(b"\n") < 40:
        said += os.read(head.stdout.fileno(), 1 << 16)
    head.send_signal(signal.SIGKILL)
    said += head.stdout.read()
    head.wait()
    head.stdout.close()
    acknowledged = int(said.split()[-1])
    end = time.monotonic() + 30
    while True:
        try:
            journal = kind.open()
            break
        except UsageError:  # a server needs a moment to see that the session is gone
            assert time.monotonic() < end
            time.sleep(0.1)
    with journal:
        numbers = [event["number"] for event in journal.events]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged
        journal.append("one", number=len(numbers))


def test_ten_thousand_trials_load_in_two_seconds(kind: Kind, tmp_path: Path) -> None:
    point = {f"p{n}": n / 7 for n in range(12)}
    with kind.open() as journal:
        journal.append("one")
        many = [
            {
                "event": "trial",
                "clock": number / 2,
                "trial": Trial(
                    number // 2, point, 1, "done" if number % 2 else "running",
                    {"auc": 0.9, "latency": 0.1}, curve=tuple((n, 0.5) for n in range(10)),
                ).to_json(),
            }
            for number in range(20_000)
        ]  # fmt: skip
        _write_at_once(journal, many)
    start = time.process_time()
    trials = trials_of(kind.read())
    assert time.process_time() - start < 2
    assert len(trials) == 10_000
    assert all(trial.done for trial in trials)


def _write_at_once(journal: EventLog, events: list[dict]) -> None:
    """Write many events without waiting for the disk after each."""
    from vesalius.tuning.journal import text_of

    if isinstance(journal, Journal):
        with open(journal.path, "ab") as stream:
            for event in events:
                text, checksum = text_of(event)
                stream.write(b"%08x %s\n" % (checksum, text.encode()))
        return
    assert isinstance(journal, PostgresJournal)
    rows = [(journal.search, n, *reversed(text_of(e))) for n, e in enumerate(events, 1)]
    with journal._held.transaction(), journal._held.cursor() as cursor:
        cursor.executemany(postgres_journal._WRITE, rows)


def test_a_server_that_restarts_in_between_costs_nothing(
    database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"search-{next(_NUMBERS)}"
    with PostgresJournal(database.url, name) as journal:
        journal.append("before")
        database.stop()
        back = threading.Timer(0.3, database.start)
        back.start()
        journal.append("after")
        back.join()
        assert read_postgres(database.url, name) == journal.events
        database.stop()
        try:
            monkeypatch.setattr(postgres_journal, "PATIENCE", 0.0)
            with pytest.raises(UnavailableError, match=r"fails .*the same command goes on"):
                journal.append("never")
        finally:
            database.start()
    assert [e["event"] for e in read_postgres(database.url, name)] == ["before", "after"]


def test_a_head_that_was_cut_off_stops_where_another_took_over(database: Server) -> None:
    name = f"search-{next(_NUMBERS)}"
    with PostgresJournal(database.url, name) as old:
        old.append("one")
        old._held.close()  # the line breaks: the server gives the lock back
        with PostgresJournal(database.url, name) as new:
            new.append("two")
        with pytest.raises(UsageError, match="another process"):
            old.append("three")
    assert [e["event"] for e in read_postgres(database.url, name)] == ["one", "two"]


def test_an_append_whose_answer_was_lost_is_not_written_twice(database: Server) -> None:
    name = f"search-{next(_NUMBERS)}"
    with PostgresJournal(database.url, name) as journal:
        journal.append("one")
        row = (name, 1, *reversed(postgres_journal.text_of({"event": "two"})))
        journal._held.execute(postgres_journal._WRITE, row)  # committed, then the line breaks
        journal.close()
        journal.append("two")
        journal.append("three")
        assert read_postgres(database.url, name) == journal.events
    assert [e["event"] for e in journal.events] == ["one", "two", "three"]


def test_damage_and_absence_are_told(database: Server) -> None:
    name = f"search-{next(_NUMBERS)}"
    with PostgresJournal(database.url, name) as journal:
        for number in range(3):
            journal.append("one", number=number)
        journal._held.execute(
            "UPDATE vesalius_search_events SET event = replace(event, '1', '2') "
            "WHERE search = %s AND number = 1",
            [name],
        )
    with pytest.raises(RunError, match=r"event 1 .*damaged"):
        PostgresJournal(database.url, name)
    with pytest.raises(UnavailableError, match="check that it runs"):
        read_postgres("postgresql://vesalius@/postgres?host=/nonexistent", name)
    assert check_url(database.url) == database.url
    for wrong, words in (
        ("sqlite:///x", "a journal is postgresql://"),
        ("postgresql://me:secret@host/db", "must hold no password"),
        ("postgresql://host/db?nonsense=1", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=words):
            check_url(wrong)
