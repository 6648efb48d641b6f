# SPDX-License-Identifier: Apache-2.0
"""Paths leave the words that go into reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from vesalius.reporting.redact import plain_evidence, shareable_command, without_paths


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ("DOE/1.dcm breaks off", ["DOE/1.dcm"]),
        ("/data/in/DOE/1.dcm: breaks off", []),
        ("'/srv/DOE 1.dcm'", ["/srv/DOE 1.dcm"]),
        (r"C:\pacs\DOE\x.dcm is cut", []),
        ("file DOE_JANE.dcm is cut", ["2020/DOE_JANE.dcm"]),
    ],
)
def test_paths_are_hidden(words, paths):
    assert "DOE" not in without_paths(words, paths)


def test_plain_words_stay():
    words = "slice 3/4 is 1.5 times as bright; expected HU and/or Bq/ml"
    assert without_paths(words, ["CT/im.dcm"]) == words


def test_evidence_keeps_its_numbers():
    found = plain_evidence({"a": 1.23456789, "b": ["/x/DOE/y.dcm", 3], "c": None})
    assert found == {"a": 1.235, "b": ["[path]", 3], "c": None}


def test_commands_name_folders_by_role():
    command = (
        "vesalius train segment /home/doe/cohort --where \"modality='CT'\" --out=/tmp/doe/x "
        "--minutes 2 --resume runs/classify-1234"
    )
    shown = shareable_command(
        command, run=Path("runs/classify-1234"), cohort=Path("/home/doe/cohort")
    )
    assert "doe" not in shown
    assert shown.startswith("vesalius train segment COHORT --where ")
    assert "--out=PATH --minutes 2 --resume RUN" in shown


def test_a_run_named_like_its_task_does_not_hide_the_task():
    shown = shareable_command(
        "vesalius train segment data/cohort --out segment",
        run=Path("segment"),
        cohort=Path("cohort"),
    )
    assert shown == "vesalius train segment COHORT --out RUN"
