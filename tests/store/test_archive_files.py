# SPDX-License-Identifier: Apache-2.0
"""What an archive leaves on disk: flushed when told, gone when erased, whole after kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vesalius.errors import DataError, UsageError
from vesalius.store import cells, index, lance, lance_table, parts
from vesalius.store.conformance.engine import COLUMNS, DIMENSION, IDENTITY, some, vector_of
from vesalius.store.protocol import Entry, Filter

_WRITE = """
import sys, time
sys.path.insert(0, {tests!r})
from vesalius.store import lance
from vesalius.store.conformance.engine import some
lance.INDEXED_FROM = 1
archive = lance.open_archive(sys.argv[1])
start, count = int(sys.argv[2]), int(sys.argv[3])
entries = some(start + count)[start:]
for at in range(0, count, 5):
    archive.upsert(entries[at : at + 5])
    print(start + at + 5, flush=True)
    if at % 20 == 15:
        archive.compact()
"""


def made(folder: Path, count: int = 0) -> lance.LanceArchive:
    archive = lance.create_archive(
        folder / "archive", identity=IDENTITY, dimension=DIMENSION, columns=COLUMNS
    )
    archive.upsert(some(count))
    return archive


def holding(folder: Path, wanted: bytes) -> list[str]:
    """Return the files of a folder that hold some bytes in their content or name."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if wanted in path.read_bytes() or wanted in name.encode():
                found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("indexed", [False, True])
def test_no_byte_of_an_erased_patient_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: bool
) -> None:
    """Look at every byte of every file: pseudonym, key, case, words, fact, vector, thumbnail."""
    if indexed:
        monkeypatch.setattr(lance, "INDEXED_FROM", 1)
    archive = made(tmp_path, 40)
    vector = np.zeros(DIMENSION, np.float32)
    vector[:2] = 0.28, 0.96
    secret = Entry(
        "Qkey7731", "Qcase7731", "Qpatient7731", vector, "Qwords7731 seen",
        {"modality": "Qfact7731"}, b"Qthumbnail7731",
    )  # fmt: skip
    archive.upsert([secret])
    archive.upsert([Entry("kept", "kept-case", "kept-patient", None, "Qother8842")])
    archive.compact()
    archive.upsert([Entry("Qkey7732", "Qcase7731", "Qpatient7731", vector, "Qwords7731")])
    archive.delete_keys(["Qkey7732"])
    secrets = [name.encode() for name in ("Qkey773", "Qcase7731", "Qpatient7731", "Qfact7731")]
    secrets += [b"words7731", b"Qthumbnail7731", vector.tobytes()]
    for wanted in [*secrets, b"ther8842"]:
        assert holding(archive.path, wanted), f"{wanted!r} is there before"
    archive.erase_patients(["Qpatient7731"])
    for wanted in secrets:
        assert holding(archive.path, wanted) == []
    assert holding(archive.path, b"ther8842"), "what others have is there still"
    assert len(archive.held()) == 41
    assert (archive.path / "index").is_dir() == indexed


def test_bytes_of_deleted_keys_leave_with_old_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    archive = made(tmp_path, 60)
    vector = vector_of(some(60)[8])
    archive.delete_keys(["image-0008"])
    archive.compact()
    assert holding(archive.path, vector.tobytes()), "earlier versions are kept for a while"
    assert lance.open_archive(archive.path, 2).vectors(["image-0008"]).shape == (1, DIMENSION)
    monkeypatch.setattr(lance, "KEPT", timedelta(seconds=0.01))
    time.sleep(0.1)
    archive.compact()
    assert holding(archive.path, vector.tobytes()) == []
    assert len(archive.held()) == 59


@pytest.mark.parametrize("action", ["upsert", "delete", "compact", "erase", "create"])
def test_all_is_flushed_before_the_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Each file that is new after a call, and the folder it is in, was flushed within the call."""
    monkeypatch.setattr(lance, "INDEXED_FROM", 1)
    flushed: set[tuple[int, int]] = set()
    plain = os.fsync

    def fsync(handle: int) -> None:
        found = os.fstat(handle)
        flushed.add((found.st_dev, found.st_ino))
        plain(handle)

    archive = made(tmp_path, 20)
    archive.upsert(some(30)[20:])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    time.sleep(0.02)
    monkeypatch.setattr(os, "fsync", fsync)
    calls = {
        "upsert": lambda: archive.upsert(some(40)[25:]),
        "delete": lambda: archive.delete_keys(["image-0003"]),
        "compact": archive.compact,
        "erase": lambda: archive.erase_patients(["patient-0002"]),
        "create": lambda: made(tmp_path / "other", 5),
    }
    calls[action]()
    changed = [
        path
        for path in tmp_path.rglob("*")
        if path.name != lance_table.LOCK and before.get(path) != path.stat().st_mtime_ns
    ]
    assert len(changed) > 3
    for path in changed:
        found = path.stat()
        assert (found.st_dev, found.st_ino) in flushed, path


def test_two_processes_write_and_compact_and_lose_nothing(tmp_path: Path) -> None:
    archive = made(tmp_path)
    code = _WRITE.format(tests=str(Path(__file__).parent))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, archive.path, str(start), "40"], stdout=subprocess.DEVNULL
        )
        for start in (0, 40)
    ]
    assert [child.wait(120) for child in children] == [0, 0]
    assert sorted(archive.held()) == [entry.key for entry in some(80)]


def test_a_killed_writer_loses_nothing_that_it_was_told(tmp_path: Path) -> None:
    """Killed in the middle of writing and of making an index; then all goes on."""
    archive = made(tmp_path)
    code = _WRITE.format(tests=str(Path(__file__).parent))
    told = 0
    for wait in (0.0, 0.3):
        command = [sys.executable, "-c", code, archive.path, str(told), "2000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            told = int(child.stdout.readline())
            time.sleep(wait)
            os.kill(child.pid, signal.SIGKILL)
            told = max([told, *map(int, child.stdout.read().split())])
        held = lance.open_archive(archive.path).held()
        assert {entry.key for entry in some(told)} <= set(held)
    archive.compact()
    assert not [path for path in (tmp_path / "archive").rglob("*") if "partial" in path.name]
    (near,) = archive.nearest(vector_of(some(1)[0]), 1)
    assert near.keys == ("image-0000",)


def test_an_index_half_made_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "INDEXED_FROM", 1)
    archive = made(tmp_path, 50)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(index, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.compact()
    opened = lance.open_archive(archive.path)
    assert opened.condition().unindexed == 50
    assert opened.condition().alarms
    archive.compact()
    assert opened.condition().unindexed == 0, "others see the index when it is there"
    assert len(list((archive.path / "index").iterdir())) == 1


def test_index_finds_nearly_all_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "INDEXED_FROM", 1)
    monkeypatch.setattr(parts, "GATHERED", 100)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((12, DIMENSION))
    vectors = centers[rng.integers(0, 12, 4000)] + 0.4 * rng.standard_normal((4000, DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = rng.choice(["MR", "CT", "CT", "CT"], 4000)
    archive = made(tmp_path)
    archive.upsert(
        Entry(f"k{at:04d}", "c", "p", vector, facts={"modality": str(kind), "age": at % 100})
        for at, (vector, kind) in enumerate(zip(vectors, kinds, strict=True))
    )
    queries = vectors[:40] + 0.1 * rng.standard_normal((40, DIMENSION))
    given = [Filter(), Filter(where="modality = 'MR'"), Filter(where="age = 7")]
    exact = [archive.nearest(queries, 10, one) for one in given]
    archive.compact()
    assert not archive.condition().exact
    looked = next(part.cells for part in archive._now().parts if part.cells)  # type: ignore[union-attr]
    assert len(looked.centroids) > 40
    assert looked.number(1.0) < len(looked.centroids) / 2, "most cells are not looked at"
    for one, wanted in zip(given, exact, strict=True):
        found = archive.nearest(queries, 10, one)
        shared = [len(set(a.keys) & set(b.keys)) / 10 for a, b in zip(found, wanted, strict=True)]
        assert np.mean(shared) >= 0.97
    about = json.loads(next((archive.path / "index").iterdir()).joinpath("index.json").read_text())
    assert set(about["looked"]) == {"1.0", "0.25", "0.05"}
    assert all(one["recall_at_10"] >= cells.RECALL for one in about["looked"].values())
    for one in given[:2]:
        (many,) = archive.nearest(queries[0], 800, one)
        assert len(many.keys) == 800, "as many as are asked for, however many cells that takes"
    archive.upsert([Entry("new", "c", "p", queries[0] / np.linalg.norm(queries[0]))])
    assert archive.nearest(queries[0], 1)[0].keys == ("new",), "what no index covers is found"
    assert archive.condition().unindexed == 1


def test_folders_that_are_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no archive"):
        lance.open_archive(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="there already"):
        lance.create_archive(tmp_path, identity={}, dimension=4, columns={})
    archive = made(tmp_path, 3)
    about = json.loads((archive.path / "archive.json").read_text())
    for change, said in (({"format": 99}, "another version"), ({"words": 0}, "another version")):
        (archive.path / "archive.json").write_text(json.dumps(about | change))
        with pytest.raises(DataError, match=said):
            lance.open_archive(archive.path)
    (archive.path / "archive.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        lance.open_archive(archive.path)
    (archive.path / "archive.json").write_text(json.dumps(about))
    assert len(lance.open_archive(archive.path).held()) == 3
    with pytest.raises(UsageError, match="dimension"):
        lance.create_archive(tmp_path / "x", identity={}, dimension=-1, columns={})
    assert not (tmp_path / "x").exists()
