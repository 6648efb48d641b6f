# SPDX-License-Identifier: Apache-2.0
"""The verbs `search` and `leaderboard`: how limits are written, what a person sees meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vesalius.cli.leaderboard import leaderboard
from vesalius.cli.search_table import LiveTable, _table
from vesalius.cli.terminal import seconds
from vesalius.errors import UsageError
from vesalius.flows.searching.result import SearchResult
from vesalius.tuning.journal import Journal
from vesalius.tuning.trial import Trial

ASKED = {"task": "classify", "max_latency": None, "max_memory": None, "max_size": None}
SETTING = {
    "format": "search 1", "asked": ASKED, "quality": "auc", "steps": [10, 30], "minutes": 20,
}  # fmt: skip


def trial(number: int, auc: float, state: str = "done") -> Trial:
    values = {"auc": auc, "latency": 0.02, "memory": 4e8, "size": 1e7}
    done = state == "done"
    return Trial(number, {"model": "cnn", "lr": 1e-3}, 1, state, values if done else {}, 12.0)


def test_times_are_read_with_their_units() -> None:
    assert seconds("50ms") == pytest.approx(0.05)
    assert seconds(" 0.2 s") == pytest.approx(0.2)
    assert seconds("2") == 2
    with pytest.raises(UsageError, match="for example 50ms; got 'fast'"):
        seconds("fast")


def test_in_a_pipe_each_trial_that_ends_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def state(*trials: Trial) -> SearchResult:
        return SearchResult(tmp_path, SETTING, trials, 60.0)

    with LiveTable() as table:
        table.show(state(trial(0, 0, "running")))
        table.show(state(trial(0, 0.9)))
        table.show(state(trial(0, 0.9), trial(1, 0, "running")))
        table.show(state(trial(0, 0.9), trial(1, 0, "failed")))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "trial 0 (model cnn, lr 0.001): auc 0.9000, latency 20.0 ms, memory 400.0 MB" in lines[0]
    assert "19:00 left" in lines[0]
    assert "trial 1" in lines[1]
    assert "failed" in lines[1]


def test_on_a_terminal_the_best_stand_on_top(tmp_path: Path) -> None:
    trials = (trial(0, 0.7), trial(1, 0.9), trial(2, 0, "running"))
    table = _table(SearchResult(tmp_path, SETTING, trials, 60.0))
    assert [str(cell) for cell in table.columns[0].cells] == ["1*", "0", "2 …"]
    assert "2 trials ended, 19:00 left" in str(table.title)


def test_the_leaderboard_lists_the_best_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "search.json").write_text(json.dumps(SETTING))
    with Journal(tmp_path / "journal.jsonl") as journal:
        for number, auc in enumerate((0.7, 0.9, 0.8)):
            journal.append("trial", trial=trial(number, auc).to_json(), clock=60.0)
    leaderboard(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:3] == ["trial", "", "auc"]
    assert [line.split("\t")[0] for line in lines[1:4]] == ["1", "2", "0"]
    assert lines[1].split("\t")[1] == "*"
    leaderboard(tmp_path, as_json=True)
    held = json.loads(capsys.readouterr().out)
    assert held["best"]["number"] == 1
    assert held["front"] == [1]
