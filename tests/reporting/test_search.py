# SPDX-License-Identifier: Apache-2.0
"""The page of a search: its words, its charts, nothing of a patient, whatever the trials were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vesalius.files import read_json
from vesalius.reporting.search import write_search


def trial(number: int, *, state: str = "done", **changes: Any) -> dict[str, Any]:
    values = {"auc": 0.7 + number / 100, "latency": 0.01 + number / 1e3, "memory": 4e8, "size": 1e7}
    return {
        "number": number, "parameters": {"model": "cnn", "lr": 0.001 * (1 + number)},
        "rung": number % 2, "state": state, "values": values if state == "done" else {},
        "seconds": 10.0, "plan": f"{number:016x}", "why": "model", "curve": [[1, 0.5], [2, 0.6]],
        "attempts": 1, "facts": {}, "run": "runs/x", "steps": 10, "weights": True, **changes,
    }  # fmt: skip


@pytest.fixture
def content() -> dict[str, Any]:
    trials = [trial(n) for n in range(12)]
    trials += [trial(12, state="failed", why="it broke in /home/somebody/scans/<b>")]
    return {
        "path": "/home/somebody/search", "task": "classify", "seconds": 754.0,
        "objectives": ["auc", "latency", "memory", "size"], "best": trials[11], "front": [0, 11],
        "within_limits": True, "trials": trials, "importance": {"lr": 0.8, "model": 0.1},
        "confirmed": {
            "winner": 11,
            "corrected": {"raw": 0.81, "value": 0.78, "low": 0.7, "high": 0.86, "trials": 12,
                          "groups": 50},
            "held_out": {"name": "auc", "value": 0.77, "low": 0.66, "high": 0.87, "n": 40,
                         "n_patients": 38},
        },
        "setting": {
            "target": "lesion", "asked": {"task": "classify", "cohort": "/home/somebody/cohort"},
            "audit": ["87 cases of 'train' are set apart"],
        },
    }  # fmt: skip


def test_the_page_says_what_was_found(content: dict[str, Any], tmp_path: Path) -> None:
    page = write_search(content, tmp_path).read_text()
    for words in (
        "12 trials came to an end (1 failed) in 12.6 minutes; 2 of them stand on the front",
        "0.810", "0.780", "0.770", "40 cases that no trial saw", "as the best of 12",
        "auc over latency", "auc over memory", "auc over size", "A line a trial", "21.0 ms",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("<img") == 7
    assert "<b>" not in page
    assert "/home/somebody" not in page
    assert "/home/somebody" not in (tmp_path / "report.json").read_text()
    assert read_json(tmp_path / "report.json")["front"] == [0, 11]


def test_a_search_of_frozen_features_alone_has_a_page_too(
    content: dict[str, Any], tmp_path: Path
) -> None:
    only = trial(0, curve=[], parameters={"model": "frozen"}, rung=0)
    content |= {"trials": [only], "best": only, "front": [0], "importance": {}, "confirmed": None}
    content["within_limits"] = False
    page = write_search(content, tmp_path).read_text()
    assert "None of them keeps the limits" in page
    assert "Validations while networks trained" not in page
