# SPDX-License-Identifier: Apache-2.0
"""Where a search runs and keeps things: what is refused, what is remembered, runs that travel."""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from vesalius.errors import RunError, UnavailableError, UsageError
from vesalius.flows.search import search
from vesalius.flows.searching import artifacts
from vesalius.flows.searching.artifacts import InFolder, InStore, artifacts_of
from vesalius.flows.searching.ending import seconds_needed
from vesalius.flows.searching.machines import Machines, open_events, read_events, storage_of
from vesalius.tuning import ray_connection
from vesalius.tuning.journal import FILE
from vesalius.tuning.local import LocalProcesses
from vesalius.tuning.trial import Trial

DATABASE, BUCKET = "postgresql://me@db.example/searches", "s3://bucket/searches"


def test_what_contradicts_itself_is_named() -> None:
    for given, words in (
        ({"on": "rai"}, "Did you mean 'ray'"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"on": "ray", "cpus": 0}, "takes one CPU or more"),
        ({"address": "host:6379"}, "address is of a search on ray; add --on ray"),
        ({"cpus": 2, "artifacts": BUCKET}, "trial_cpus, artifacts is of a search on ray"),
        ({"on": "ray", "endpoint": "http://127.0.0.1:1"}, "add --artifacts"),
        ({"on": "ray", "artifacts": "bucket"}, "s3://BUCKET/PREFIX"),
        ({"journal": "journal.jsonl"}, "a journal is postgresql://"),
        ({"journal": "postgresql://me:word@db.example/x"}, "must hold no password"),
    ):
        with pytest.raises(UsageError, match=words):
            Machines(**given).check()
    Machines(on="ray", address="h:6379", gpus=0.5, artifacts=BUCKET, journal=DATABASE).check()


def test_the_flow_says_so_before_anything_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is of a search on ray"):
        search("classify", tmp_path, address="host:6379", out=tmp_path / "s")
    never = types.SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", never)  # the address is tried before it is needed
    for name in ray_connection._QUIET:  # set when a cluster is joined; gone after the test
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UnavailableError, match="no Ray cluster at"):
        search("classify", tmp_path, on="ray", address="127.0.0.1:1", out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_where_things_are_is_remembered_and_kept(tmp_path: Path) -> None:
    assert Machines().keep(tmp_path) == dict.fromkeys(("name", "journal", "artifacts", "endpoint"))
    assert not list(tmp_path.iterdir())
    given = Machines(on="ray", journal=DATABASE, artifacts=BUCKET, endpoint="http://127.0.0.1:1")
    held = given.keep(tmp_path)
    assert (held["journal"], held["artifacts"]) == (DATABASE, BUCKET)
    assert given.keep(tmp_path) == Machines().keep(tmp_path) == storage_of(tmp_path) == held
    with pytest.raises(RunError, match=r"keeps its journal at postgresql://me@db.example/searches"):
        Machines(journal="postgresql://me@other/searches").keep(tmp_path)
    begun = tmp_path / "begun"
    with open_events(begun) as journal:
        journal.append("one")
    assert read_events(begun) == [{"event": "one"}]
    assert (begun / FILE).exists()
    with pytest.raises(RunError, match="was begun with its journal and artifacts in its own"):
        given.keep(begun)


def test_here_trials_share_the_machine() -> None:
    one = Machines().executor("toys:toy", shared=True)
    three = Machines(workers=3).executor("toys:toy", shared=True)
    assert isinstance(one, LocalProcesses)
    assert isinstance(three, LocalProcesses)
    assert (one.free, three.free) == (1, 3)
    assert one.memory is not None
    assert three.memory == one.memory // 3


class FolderStore:
    """An object store's promises, kept by a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.puts = root, 0

    def put(self, name: str, folder: Path, *, leave: Sequence[str] = ()) -> int:
        self.puts += 1
        to = self.root / name
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            relative = path.relative_to(folder).as_posix()
            if not any(fnmatch.fnmatchcase(relative, pattern) for pattern in leave):
                (to / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to / relative)
        return 0

    def get(self, name: str, folder: Path, *, only: Sequence[str] = ("*",)) -> list[str]:
        for relative in self.files(name):
            if any(fnmatch.fnmatchcase(relative, pattern) for pattern in only):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.root / name / relative, folder / relative)
        return []

    def files(self, name: str) -> dict:
        paths = [p for p in (self.root / name).rglob("*") if p.is_file()]
        return {
            p.relative_to(self.root / name).as_posix(): {"bytes": p.stat().st_size} for p in paths
        }

    def drop(self, name: str, patterns: Sequence[str]) -> None:
        for relative in self.files(name):
            if any(fnmatch.fnmatchcase(relative, pattern) for pattern in patterns):
                (self.root / name / relative).unlink()


def train(folder: Path, words: str) -> None:
    """Leave what training leaves."""
    for name in ("plan.json", "model.safetensors", "networks/0/model.safetensors", "cache/views"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(words)


def held(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_run_goes_on_on_another_machine_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_EVERY", 0.01)
    store = FolderStore(tmp_path / "store")
    runs = InStore(store, "abc")
    one, two, head = tmp_path / "one" / "p1", tmp_path / "two" / "p1", tmp_path / "head" / "p1"

    def lost() -> None:
        with runs.mirrored(one):
            train(one, "half")
            while "model.safetensors" not in store.files("abc/p1"):  # kept while it trains
                time.sleep(0.01)
            raise KeyboardInterrupt  # its node is lost

    with pytest.raises(KeyboardInterrupt):
        lost()
    with runs.mirrored(two):
        assert (two / "model.safetensors").read_text() == "half"
        assert "cache/views" not in held(two)
        train(two, "whole")
    assert not two.exists()  # the node's disk is free again
    runs.bring(head, weights=False)
    assert held(head) == ["plan.json"]
    runs.bring(head, weights=True)
    assert held(head) == ["model.safetensors", "networks/0/model.safetensors", "plan.json"]
    assert (head / "model.safetensors").read_text() == "whole"
    assert runs.size(head) == 3 * len("whole")
    runs.drop_weights(head)
    assert runs.size(head) == 0
    assert held(head) == held(tmp_path / "store" / "abc" / "p1") == ["plan.json"]


def test_a_trial_elsewhere_finds_the_split_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    runs = InStore(FolderStore(tmp_path / "store"), "abc")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "split.json").write_text('{"a": 1}')
    runs.begin(tmp_path / "search")
    payload = {"search": "/of/the/head", "asked": {"split": "/of/the/head/split.json", "seed": 3}}
    found = runs.here(payload)
    assert json.loads(Path(found["asked"]["split"]).read_text()) == {"a": 1}
    assert Path(found["asked"]["split"]).parent == Path(found["search"])
    assert found["asked"]["seed"] == 3
    assert payload["search"] == "/of/the/head"


def test_in_a_folder_runs_stay_where_they_are(tmp_path: Path) -> None:
    runs = artifacts_of(None)
    assert isinstance(runs, InFolder)
    run = tmp_path / "p1"
    with runs.mirrored(run):
        train(run, "whole")
    assert runs.size(run) == 4 * len("whole")
    runs.drop_weights(run)
    assert runs.size(run) == 0
    assert held(run) == ["cache/views", "plan.json"]
    assert runs.here({"search": "s"}) == {"search": "s"}


def test_the_end_is_given_more_time_on_a_busier_machine() -> None:
    setting = {"preparation_seconds": 3.0, "held_out": ["a"] * 100}
    assert seconds_needed(setting, [Trial(0, {}, 0)]) == 3.0

    def needed(slowdown: float, latency: float) -> float:
        values, facts = {"auc": 0.5, "latency": latency}, {"slowdown": slowdown}
        return seconds_needed(setting, [Trial(0, {}, 0, "done", values, facts=facts)] * 5)

    assert needed(8.0, 0.0) == pytest.approx(8 * needed(1.0, 0.0))
    assert needed(1.0, 0.2) == pytest.approx(needed(1.0, 0.0) + 100 * 0.2)
    assert needed(0.001, 0.0) == 3.0
