# SPDX-License-Identifier: Apache-2.0
"""What is typed of a segmentation arrives at the flow as it was meant."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vesalius.cli.main import main

ASKED = ["--labels", "whole=1+2,core", "--ignore", "unknown", "--memory", "6GB"]


class Reached(Exception):
    """Raised in the place of the flow."""


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_labels_and_memory_reach_the_flow(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, object] = {}

    def flow(*_: object, **given: object) -> SimpleNamespace:
        held.update(given)
        raise Reached

    monkeypatch.setattr(f"vesalius.flows.{verb}.{verb}", flow)
    monkeypatch.setattr(sys, "argv", ["vesalius", verb, "segment", "cohort", *ASKED])
    with pytest.raises(Reached):
        main()
    assert held["labels"] == "whole=1+2,core"
    assert held["ignore"] == "unknown"
    assert held["memory"] == 6 * 10**9


def test_channels_reach_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, object] = {}

    def flow(*_: object, **given: object) -> SimpleNamespace:
        held.update(given)
        raise Reached

    monkeypatch.setattr("vesalius.flows.predict.predict", flow)
    words = ["vesalius", "predict", "run", "exam", "--out", "out", "--channels", "T1,FLAIR"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Reached):
        main()
    assert held["channels"] == "T1,FLAIR"


def test_a_size_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vesalius", "train", "segment", "c", "--memory", "six"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "a size is a number with KB, MB, GB" in capsys.readouterr().err
