# SPDX-License-Identifier: Apache-2.0
"""Models kept between exams: loaded once, again when the run changes, the oldest let go."""

from __future__ import annotations

from pathlib import Path

import pytest

from vesalius.flows.predicting import loaded
from vesalius.flows.predicting.loaded import Loaded, keep_models, model_of
from vesalius.tasks.run import Run


def run(folder: Path, text: str = "one") -> Run:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text(text)
    return Run(folder, {"id": folder.name})


def test_a_model_is_loaded_once_and_again_when_its_run_was_changed(tmp_path: Path) -> None:
    loads: list[str] = []

    def load(one: Run) -> str:
        loads.append(one.path.name)
        return (one.path / "model.safetensors").read_text()

    kept = Loaded(most=2)
    a, b, c = (run(tmp_path / name) for name in "abc")
    assert [kept.get(one, load) for one in (a, b, a, b)] == ["one"] * 4
    assert loads == ["a", "b"]
    run(a.path, "another")
    assert kept.get(a, load) == "another"
    assert loads == ["a", "b", "a"]
    kept.get(c, load)  # b was used longest ago
    kept.get(a, load)
    kept.get(b, load)
    assert loads == ["a", "b", "a", "c", "b"]


def test_what_cannot_be_loaded_is_not_kept(tmp_path: Path) -> None:
    kept, a = Loaded(most=1), run(tmp_path / "a")

    def broken(_: Run) -> str:
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            kept.get(a, broken)
    assert kept.get(a, lambda _: "model") == "model"


def test_a_process_keeps_nothing_unless_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "_PROCESS", Loaded())
    a = run(tmp_path / "a")
    models = [model_of(a, lambda _: object()) for _ in range(2)]
    assert models[0] is not models[1]
    keep_models(1)
    models = [model_of(a, lambda _: object()) for _ in range(2)]
    assert models[0] is models[1]
