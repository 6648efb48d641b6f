# SPDX-License-Identifier: Apache-2.0
"""The verb `compress`: how limits are written, and what a person or a machine is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vesalius.cli.main import app
from vesalius.flows.compressing.cost import Cost
from vesalius.flows.compressing.result import Compression
from vesalius.metrics.comparison import Difference
from vesalius.reporting.compress import write_compression

AUC = Difference(
    "auc", "", 0.91, 0.905, -0.005, -0.012, 0.003, 0.2, "higher", "not told apart", 78, 70
)


def result(path: Path, **changes: Any) -> Compression:
    held: dict[str, Any] = {
        "path": path,
        "task": "classify",
        "target": "kind",
        "teacher": "classify-aaaa",
        "student": "classify-bbbb",
        "models": {"teacher": "3 members", "student": "cnn-28-w8", "onnx": "onnx, fp32"},
        "costs": {
            "teacher": Cost(0.06, 0.09, 0.059, 200, 400_000_000, 30_000_000),
            "student": Cost(0.01, 0.02, 0.009, 200, 200_000_000, 3_000_000),
            "onnx": Cost(0.005, 0.01, 0.004, 200, 100_000_000, 2_500_000),
        },
        "quality": AUC,
        "limits": {"seconds": 0.02, "bytes": None},
    }
    return Compression(**{**held, **changes})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Any, dict]]:
    """Return what runs the verb without its work: the outcome, and what the flow was given."""

    def call(*words: str) -> tuple[Any, dict]:
        given: dict[str, Any] = {}

        def flow(run: Path, cohort: Path, **options: Any) -> Compression:
            given.update(options, run=run, cohort=cohort)
            return result(tmp_path)

        monkeypatch.setattr("vesalius.flows.compress.compress", flow)
        return CliRunner().invoke(app, ["compress", "RUN", "COHORT", *words]), given

    return call


def test_limits_are_read_with_their_units(asked) -> None:
    done, given = asked("--max-latency", "20ms", "--max-size", "20MB", "--to", "onnx", "--int8")
    assert done.exit_code == 0
    assert given["run"] == Path("RUN")
    assert given["max_latency"] == pytest.approx(0.02)
    assert given["max_size"] == 20_000_000
    assert (given["to"], given["int8"], given["minutes"]) == ("onnx", True, None)


def test_the_table_says_what_it_costs_and_the_json_holds_the_same(asked) -> None:
    said = asked()[0].stdout
    assert "the student is 6.0 times as fast and 10.0 times as small" in said
    assert "teacher 0.910, student 0.905, difference -0.005 [-0.012, +0.003]" in said
    held = json.loads(asked("--json")[0].stdout)
    assert held["faster"] == pytest.approx(6)
    assert held["costs"]["onnx"]["size"] == 2_500_000


def test_what_is_deployed_has_to_keep_the_limits(tmp_path: Path) -> None:
    assert result(tmp_path).within
    slow = result(tmp_path, limits={"seconds": 0.001, "bytes": None})
    assert not slow.within
    assert any("limits are not kept" in line for line in slow.lines())
    large = result(tmp_path, limits={"seconds": None, "bytes": 1000})
    assert not large.within


def test_the_page_names_no_path(tmp_path: Path) -> None:
    one = result(tmp_path, refused="the file /home/me/secret/model.onnx fails")
    page = write_compression(one.to_json(), tmp_path).read_text()
    assert "secret" not in page
    assert "secret" not in (tmp_path / "compression.json").read_text()
    assert "6.0×" in page
    assert "-0.005" in page
