# SPDX-License-Identifier: Apache-2.0
"""A cohort becomes an archive: what is worked on, what is kept, what is refused, what is erased."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vesalius.cli.main import app
from vesalius.cohorts import Cohort
from vesalius.errors import DataError, RunError, UsageError
from vesalius.flows.archive_care import compact, forget, status
from vesalius.flows.index import index
from vesalius.flows.indexing.columns import archive_where, facts_of, words_of
from vesalius.flows.scan import scan
from vesalius.store.lance import open_archive
from vesalius.tasks.retrieve.embedder import Embedder
from vesalius.tasks.retrieve.search_keys import EntryKey

sys.path.insert(0, str(Path(__file__).parent))
from clinic import picture, write_clinic


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clinic")
    cohort = write_clinic(root)
    index(cohort, out=root / "archive.index", encoder="frozen")
    return root


@pytest.fixture
def own(clinic: Path, tmp_path: Path) -> Path:
    """Return a copy of the clinic that a test may change."""
    for name in ("data", "cohort", "archive.index"):
        shutil.copytree(clinic / name, tmp_path / name)
    info = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    text = (tmp_path / "cohort" / "cohort.json").read_text()
    for old in info["roots"].values():
        text = text.replace(old, str(tmp_path / "data"))
    (tmp_path / "cohort" / "cohort.json").write_text(text)
    return tmp_path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return a clinic of its own, that may be scanned again."""
    cohort = write_clinic(tmp_path, patients=6)
    index(cohort, out=tmp_path / "archive.index", encoder="frozen")
    return tmp_path


def test_the_archive_holds_what_the_encoder_says_of_each_image(clinic: Path) -> None:
    archive = open_archive(clinic / "archive.index")
    cohort = Cohort.open(clinic / "cohort")
    entries = archive.entries(list(archive.held()))
    assert len(entries) == len(cohort) == 34
    embedder = Embedder.load("frozen")
    for entry in entries[::9]:
        key = EntryKey.parse(entry.key)
        assert key is not None
        row = cohort.row(key.row)
        vector = embedder.embed_volumes([cohort.read(row)])[0]
        assert entry.vector @ vector == pytest.approx(1, abs=1e-3)
        assert entry.patient == entry.case == row["patient"]
        assert entry.facts["modality"] == row["modality"]
        assert entry.facts["age"] == row["label_age"]
        assert row["words"].rstrip(".") in entry.words
        assert max(Image.open(__import__("io").BytesIO(entry.thumbnail)).size) == 224
    assert archive.columns["age"] == "integer"
    assert archive.identity == {**embedder.identity, "case": "patient"}


def test_no_name_and_no_path_of_a_file_is_in_it(clinic: Path) -> None:
    for path in (clinic / "archive.index").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (b"SECRET0", b"Name^", b"case01_", b"St. Elsewhere"):
                assert secret not in content, path


def test_the_same_again_does_nothing(own: Path) -> None:
    before = open_archive(own / "archive.index").version
    said: list[str] = []
    done = index(own / "cohort", out=own / "archive.index", say=said.append)
    assert (done.embedded, done.renewed, done.removed) == (0, 0, 0)
    assert done.version == before
    assert said[0].startswith("34 images: 0 to embed, 0 with new words or facts, 0 gone")


def test_only_what_changed_is_worked_on(fresh: Path) -> None:
    data = fresh / "data"
    archive = open_archive(fresh / "archive.index")
    before = {EntryKey.parse(k).row: e for k, e in zip(
        archive.held(), archive.entries(list(archive.held())), strict=True)}  # fmt: skip
    Image.fromarray(picture("ring", 999)).save(data / "case01_0.png")  # other voxels
    (data / "case02_0.png").unlink()  # gone
    Image.fromarray(picture("ring", 998)).save(data / "case05_9.png")  # new
    table = (data / "labels.csv").read_text()
    table = table.replace("case03_0.png,SECRET03,US,23", "case03_0.png,SECRET03,US,77")
    (data / "labels.csv").write_text(table + "case05_9.png,SECRET05,US,25,M,ring,A new ring\n")
    scan(data, labels=data / "labels.csv", out=fresh / "cohort", workers=1)
    done = index(fresh / "cohort", out=fresh / "archive.index")
    assert (done.embedded, done.renewed, done.removed) == (2, 1, 1)
    assert done.entries == 16
    after = {EntryKey.parse(k).row: e for k, e in zip(
        archive.held(), archive.entries(list(archive.held())), strict=True)}  # fmt: skip
    cohort = Cohort.open(fresh / "cohort")
    rows = {row["files"][0]: row["key"] for row in cohort.iter_rows()}
    aged = rows["case03_0.png"]
    assert after[aged].facts["age"] == 77
    assert np.array_equal(after[aged].vector, before[aged].vector)
    assert after[aged].thumbnail == before[aged].thumbnail
    changed = rows["case01_0.png"]
    assert after[changed].vector @ before[changed].vector < 0.999
    again = index(fresh / "cohort", out=fresh / "archive.index")
    assert (again.embedded, again.renewed, again.removed) == (0, 0, 0)


def test_a_crash_costs_at_most_the_last_images(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vesalius.flows.indexing import work

    monkeypatch.setattr(work, "COMMIT", 8)
    whole = open_archive(own / "archive.index")
    wanted = sorted(whole.held())
    embed, calls = Embedder.embed, []

    def dying(self: Embedder, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "embed", dying)
    with pytest.raises(KeyboardInterrupt):
        index(own / "cohort", out=own / "half.index", encoder="frozen")
    assert len(open_archive(own / "half.index").held()) == 16
    monkeypatch.setattr(Embedder, "embed", embed)
    done = index(own / "cohort", out=own / "half.index")
    assert done.embedded == 34 - 16
    assert sorted(open_archive(own / "half.index").held()) == wanted


def test_a_part_of_a_cohort_and_what_is_not_meant_stays(own: Path) -> None:
    done = index(
        own / "cohort", out=own / "part.index", encoder="frozen", where="modality = 'US'",
        case="image",
    )  # fmt: skip
    assert done.embedded == done.entries == 18
    more = index(own / "cohort", out=own / "part.index", where="modality = 'XC'")
    assert (more.embedded, more.removed, more.entries) == (12, 0, 30)
    archive = open_archive(own / "part.index")
    assert all(e.case == EntryKey.parse(e.key).row for e in archive.entries(list(archive.held())))


def test_two_cohorts_share_an_archive_and_leave_each_other_alone(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    for seed in range(3):
        Image.fromarray(picture("ring", 500 + seed)).save(other / "data" / f"x{seed}.png")
    scan(other / "data", out=other / "cohort", workers=1)
    done = index(other / "cohort", out=own / "archive.index")
    assert (done.embedded, done.removed, done.entries, done.of_other_cohorts) == (3, 0, 37, 34)
    again = index(own / "cohort", out=own / "archive.index")
    assert (again.embedded, again.removed, again.entries) == (0, 0, 37)


def test_another_encoder_is_refused_with_the_way_out_and_reembed_takes_it(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = own / "archive.index" / "archive.json"
    about.write_text(about.read_text().replace('"weights": "', '"weights": "0'))
    with pytest.raises(RunError, match=r"another encoder \(weights differ.*--reembed"):
        index(own / "cohort", out=own / "archive.index")
    done = index(own / "cohort", out=own / "archive.index", encoder="frozen", reembed=True)
    assert done.remade
    assert done.embedded == done.entries == 34
    assert index(own / "cohort", out=own / "archive.index").embedded == 0
    assert sorted(p.name for p in own.iterdir()) == ["archive.index", "cohort", "data"]


def test_an_interrupted_exchange_is_finished(own: Path) -> None:
    (own / "archive.index").rename(own / "archive.index.before")
    shutil.copytree(own / "archive.index.before", own / "archive.index.remade")
    assert index(own / "cohort", out=own / "archive.index").embedded == 0
    assert sorted(p.name for p in own.iterdir()) == ["archive.index", "cohort", "data"]


def test_images_that_cannot_be_read_are_named_and_not_fatal(own: Path) -> None:
    (own / "data" / "case04_0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = index(own / "cohort", out=own / "new.index", encoder="frozen")
    assert done.entries == 33
    assert len(done.failures) == 1
    assert any("could not be read" in line for line in done.lines())
    for path in (own / "data").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="none of the 34 images to embed can be read"):
        index(own / "cohort", out=own / "none.index", encoder="frozen")


def test_a_picture_that_may_show_a_name_is_kept_only_when_asked(fresh: Path) -> None:
    cohort = fresh / "cohort"
    text = fresh / "data" / "case00_0.png"
    pixels = np.zeros((200, 200), np.uint8)
    pixels[80:120, ::4] = 255  # rows of strokes
    pixels[80:120, 2::4] = 0
    Image.fromarray(pixels).save(text)
    scan(fresh / "data", labels=fresh / "data" / "labels.csv", out=cohort, workers=1)
    rows = [r for r in Cohort.open(cohort).iter_rows() if r["files"][0] == "case00_0.png"]
    assert "burned-in-text-suspected" in rows[0]["findings"]

    def pictured() -> bool:
        archive = open_archive(fresh / "archive.index")
        (key,) = [k for k in archive.held() if EntryKey.parse(k).row == rows[0]["key"]]
        return bool(archive.entries([key])[0].thumbnail)

    index(cohort, out=fresh / "archive.index")
    assert not pictured()
    assert index(cohort, out=fresh / "archive.index", show_text=True).embedded == 1
    assert pictured()
    assert index(cohort, out=fresh / "archive.index").embedded == 1
    assert not pictured()


def test_a_patient_is_forgotten_by_pseudonym_or_by_name(own: Path) -> None:
    archive = open_archive(own / "archive.index")
    held = archive.held()
    patient = next(iter(held.values()))
    old = archive.version
    keys = [key for key, whose in held.items() if whose == patient]
    erased = forget(own / "archive.index", [patient])
    assert erased.images == len(keys) == 2
    assert patient in erased.line()
    assert erased.files > 3
    held = open_archive(own / "archive.index").held()
    assert patient not in held.values()
    with pytest.raises(DataError, match="cannot be opened"):
        open_archive(own / "archive.index", old)
    for path in (own / "archive.index").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert patient.encode() not in content
            assert not any(key.encode() in content for key in keys)
    erased = forget(own / "archive.index", ["SECRET07"])  # as its images state it
    assert erased.patients[0].startswith("p-")
    assert "SECRET07" not in erased.line()
    with pytest.raises(UsageError, match="holds no patient 'SECRET07'"):
        forget(own / "archive.index", ["SECRET07"])


def test_status_and_compact(own: Path) -> None:
    found = status(own / "archive.index")
    assert found["entries"] == 34
    assert found["patients"] == 17
    assert found["modalities"] == ["CT", "US", "XC"]
    assert compact(own / "archive.index").entries == 34
    runner = CliRunner()
    done = runner.invoke(app, ["index", str(own / "archive.index"), "--status", "--json"])
    assert json.loads(done.stdout)["entries"] == 34
    done = runner.invoke(app, ["index", str(own / "archive.index"), "--compact"])
    assert "entries:" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "a new archive needs an encoder"),
        ({"encoder": "frozen", "case": "visit"}, "case must be one of patient, study"),
        ({"encoder": "frozen", "where": "modalty = 'US'"}, "Did you mean 'modality'"),
    ],
)
def test_wrong_arguments_are_refused(
    clinic: Path, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        index(clinic / "cohort", out=tmp_path / "new.index", **options)


def test_more_wrong_arguments_are_refused(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        index(clinic / "cohort", out=tmp_path / "new.index", encoder=str(tmp_path / "no-run"))
    with pytest.raises(UsageError, match="finds by patient, not by image"):
        index(clinic / "cohort", out=clinic / "archive.index", case="image")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("not an archive")
    with pytest.raises(DataError, match="is no archive"):
        index(clinic / "cohort", out=tmp_path / "full", encoder="frozen")
    done = CliRunner().invoke(app, ["index", str(clinic / "archive.index")])
    assert isinstance(done.exception, UsageError)
    done = CliRunner().invoke(
        app, ["index", str(clinic / "archive.index"), "--status", "--compact"]
    )
    assert isinstance(done.exception, UsageError)


def test_labels_answer_to_both_spellings() -> None:
    columns = {"age": "integer", "label_plane": "text", "plane": "text", "modality": "text"}
    assert archive_where("label_age > 3 AND label_plane = 'x'", columns) == (
        "age > 3 AND label_plane = 'x'"
    )
    assert archive_where("note = 'label_age' OR label_age=1", columns) == (
        "note = 'label_age' OR age=1"
    )


def test_facts_of_a_row_and_what_is_unknown() -> None:
    row = {"modality": "MR", "label_modality": "mr", "label_age": float("nan"), "view": "",
           "label_sick": False, "phash": -7}  # fmt: skip
    columns = ("modality", "label_modality", "age", "view", "sick", "phash", "absent")
    assert facts_of(row, columns) == {
        "modality": "MR", "label_modality": "mr", "age": None, "view": None, "sick": False,
        "phash": -7, "absent": None,
    }  # fmt: skip


def test_words_of_a_row_stay_apart() -> None:
    row = {"words": "No effusion", "description": "CHEST", "body_part": "CHEST"}
    assert words_of(row) == "No effusion. CHEST."
    assert words_of({"words": "", "description": None, "body_part": ""}) == ""


def test_two_processes_fill_one_archive_and_lose_nothing(clinic: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "vesalius.cli.main", "index", str(clinic / "cohort"),
        "--out", str(tmp_path / "both.index"), "--encoder", "frozen", "--json",
    ]  # fmt: skip
    parts = ["modality = 'US'", "modality <> 'US'"]
    running = [
        subprocess.Popen([*command, "--where", part], stdout=subprocess.PIPE, text=True)
        for part in parts
    ]
    told = [child.communicate()[0] for child in running]
    assert [child.returncode for child in running] == [0, 0], told
    assert sum(json.loads(one)["embedded"] for one in told) == 34
    held = open_archive(tmp_path / "both.index").held()
    assert sorted(held) == sorted(open_archive(clinic / "archive.index").held())


def test_entries_may_be_kept_on_a_server(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vesalius.flows.find import find
    from vesalius.store import lance, opening

    rows, address = tmp_path / "rows", "postgresql://me@nowhere/db#scans"

    def stands_for(where: object) -> Path:
        return rows if str(where) == address else Path(str(where))

    monkeypatch.setattr(
        opening, "create_archive", lambda where, **kinds: lance.create_archive(
            stands_for(where), **kinds)
    )  # fmt: skip
    monkeypatch.setattr(
        opening, "open_archive", lambda where, at=None: lance.open_archive(stands_for(where), at)
    )
    out = tmp_path / "served.index"
    done = index(
        clinic / "cohort", out=out, encoder="frozen", server=address, where="modality = 'US'"
    )
    assert done.entries == 18
    assert sorted(p.name for p in out.iterdir()) == ["server.json", "sources", "survey.json"]
    assert (out / "server.json").stat().st_mode & 0o077 == 0
    assert len(lance.open_archive(rows).held()) == 18
    assert index(clinic / "cohort", out=out, where="modality = 'US'").embedded == 0
    assert len(find(out, words="ring", k=2).cases) == 2
    assert status(out)["entries"] == 18
    for options in ({"server": address}, {"reembed": True}):
        with pytest.raises(UsageError, match="give another --out"):
            index(clinic / "cohort", out=out, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="address is postgresql://"):
        index(clinic / "cohort", out=tmp_path / "x", encoder="frozen", server="mysql://me")
