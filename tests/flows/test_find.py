# SPDX-License-Identifier: Apache-2.0
"""Finding cases by image, by words and by both: reasons, own images, the unknown, refusals."""

from __future__ import annotations

import json
import os
import shutil
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
from vesalius.flows.find import find
from vesalius.flows.index import index
from vesalius.store.lance import open_archive

sys.path.insert(0, str(Path(__file__).parent))
from clinic import make, picture, write_clinic


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clinic")
    cohort = write_clinic(root, patients=30)
    index(cohort, out=root / "archive.index", encoder="frozen")
    return root


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """Return a picture of a ring that the archive does not hold."""
    path = tmp_path / "ring.png"
    Image.fromarray(picture("ring", 777)).save(path)
    return path


def test_an_image_finds_its_like_with_the_reason(clinic: Path, ring: Path) -> None:
    answer = find(clinic / "archive.index", image=ring, k=7)
    assert [case.facts["grade"] for case in answer.cases] == ["ring"] * 7
    assert answer.known is True
    assert answer.version == open_archive(clinic / "archive.index").version
    assert answer.searched == 64
    assert answer.left_out == {}
    first = answer.cases[0]
    assert first.rank == 1
    assert first.cosine == first.pairs[0].cosine == first.score
    assert first.percentile is not None
    assert first.percentile > 60
    row = Cohort.open(clinic / "cohort").row(first.pairs[0].image)
    assert row["patient"] == first.case
    assert first.images == 2
    scores = [case.score for case in answer.cases]
    assert scores == sorted(scores, reverse=True)


def test_several_images_are_one_set(clinic: Path, tmp_path: Path) -> None:
    exam = tmp_path / "exam"
    exam.mkdir()
    for seed in range(3):
        Image.fromarray(picture("checks", 900 + seed)).save(exam / f"{seed}.png")
    answer = find(clinic / "archive.index", image=exam, k=4)
    assert answer.images == 3
    assert [case.facts["grade"] for case in answer.cases] == ["checks"] * 4
    assert [pair.query for pair in answer.cases[0].pairs] == [1, 2, 3]
    files = sorted(exam.iterdir(), reverse=True)
    turned = find(clinic / "archive.index", image=files, k=4)
    assert [case.case for case in turned.cases] == [case.case for case in answer.cases]


def test_words_find_without_an_image_and_negation_counts(clinic: Path) -> None:
    answer = find(clinic / "archive.index", words="ring enhancing lesion", k=5)
    assert [case.facts["grade"] for case in answer.cases] == ["ring"] * 5
    assert answer.known is True
    matched = [p.text.lower() for p in answer.cases[0].text if p.mark == "match"]
    assert matched == ["ring", "enhancing", "lesion"]
    assert "".join(p.text for p in answer.cases[0].text).startswith("Ring-enhancing lesion in")
    effusion = find(clinic / "archive.index", words="effusion", k=20)
    assert {case.facts["grade"] for case in effusion.cases} == {"stripes"}
    no = find(clinic / "archive.index", words="no effusion", k=20)
    assert {case.facts["grade"] for case in no.cases} == {"checks"}


def test_both_together_and_what_says_the_contrary(clinic: Path, tmp_path: Path) -> None:
    checks = tmp_path / "checks.png"
    Image.fromarray(picture("checks", 555)).save(checks)
    answer = find(clinic / "archive.index", image=checks, words="effusion", k=30, balance=0.2)
    assert answer.scored_by.startswith("reciprocal ranks of mean best cosine of the images and")
    assert {"checks", "stripes"} <= {case.facts.get("grade") for case in answer.cases}
    denied = next(case for case in answer.cases if case.facts.get("grade") == "checks")
    assert [p.text for p in denied.text if p.mark == "contrary"] == ["effusion"]
    assert denied.bm25 is None
    for balance, first in ((0.0, "checks"), (1.0, "stripes")):
        answer = find(
            clinic / "archive.index", image=checks, words="effusion", k=1, balance=balance
        )
        assert answer.cases[0].facts["grade"] == first


def test_filters_in_both_spellings(clinic: Path, ring: Path) -> None:
    for where in ("modality = 'XC' AND age > 30", "modality = 'XC' AND label_age > 30"):
        answer = find(clinic / "archive.index", image=ring, where=where, k=50)
        assert {case.facts["modality"] for case in answer.cases} == {"XC"}
        assert min(case.facts["age"] for case in answer.cases) == 31


def test_a_patients_own_pictures_are_left_out(clinic: Path, tmp_path: Path) -> None:
    row = next(
        r for r in Cohort.open(clinic / "cohort").iter_rows() if r["files"] == ["case03_0.png"]
    )
    image = clinic / "data" / "case03_0.png"
    answer = find(clinic / "archive.index", image=image, k=40)
    assert row["patient"] not in {case.case for case in answer.cases}
    assert answer.left_out == {"an identical image": 1}
    again = find(clinic / "archive.index", image=image, k=40, own=True)
    assert again.cases[0].case == row["patient"]
    assert again.cases[0].cosine == pytest.approx(1, abs=1e-3)
    other = tmp_path / "smaller.jpg"  # the same picture, scaled and compressed
    Image.open(image).resize((58, 58)).save(other, quality=85)
    answer = find(clinic / "archive.index", image=other, k=40)
    assert row["patient"] not in {case.case for case in answer.cases}
    assert answer.left_out == {"a nearly identical image": 1}


def test_a_new_exam_of_a_known_patient_is_told_by_the_dicom_identifier(
    clinic: Path, tmp_path: Path
) -> None:
    make.series(tmp_path / "exam", patient="D2", uid="1.2.99", seed=4242)
    answer = find(clinic / "archive.index", image=tmp_path / "exam", where="modality = 'CT'")
    assert answer.left_out == {"the patient's identifier": 1}
    assert len(answer.cases) == 1  # D1
    told = json.dumps(answer.to_json()) + "\n".join(answer.lines())
    assert "D2" not in told
    assert str(tmp_path) not in told
    own = find(clinic / "archive.index", image=tmp_path / "exam", where="modality='CT'", own=True)
    assert len(own.cases) == 2


def test_without_the_cohort_it_says_that_it_cannot_tell(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic / "archive.index", tmp_path / "archive.index")
    for path in (tmp_path / "archive.index" / "sources").glob("*.json"):
        if path.stem != "encoder":
            path.write_text('{"relative": "gone", "absolute": "/nowhere/gone"}')
    make.series(tmp_path / "exam", patient="D2", uid="1.2.99", seed=4242)
    answer = find(tmp_path / "archive.index", image=tmp_path / "exam")
    assert any("--pseudonym-key" in note for note in answer.notes)
    answer = find(
        tmp_path / "archive.index",
        image=tmp_path / "exam",
        pseudonym_key=clinic / "cohort" / "pseudonym.key",
    )
    assert answer.left_out == {"the patient's identifier": 1}


def test_what_the_archive_does_not_know_it_says(clinic: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.png"
    pixels = np.zeros((64, 64), np.uint8)
    pixels[30:, :20] = 255
    Image.fromarray(pixels).save(strange)
    answer = find(clinic / "archive.index", image=strange, k=3)
    assert answer.known is False
    assert answer.verdict.startswith("nothing similar is known")
    assert "unknown below a cosine of" in answer.rule
    assert find(clinic / "archive.index", words="pneumothorax").known is False
    assert find(clinic / "archive.index", words="pneumothorax").cases == ()
    nothing = find(clinic / "archive.index", words="lesion", where="age > 200")
    assert "that fulfils the filter" in nothing.verdict


def test_a_modality_that_the_archive_never_saw(clinic: Path, tmp_path: Path) -> None:
    files = make.series(tmp_path / "exam", patient="N1", uid="1.2.77", seed=3)
    shutil.copytree(clinic / "archive.index", tmp_path / "archive.index")
    cohort = clinic / "cohort"
    index(cohort, out=tmp_path / "us.index", encoder="frozen", where="modality = 'US'")
    answer = find(tmp_path / "us.index", image=files[0].parent, k=2)
    assert answer.known is False
    assert "holds no image of the modality CT (it holds US)" in answer.verdict


def test_an_earlier_version_answers_as_it_did(clinic: Path, ring: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic / "archive.index", tmp_path / "archive.index")
    archive = open_archive(tmp_path / "archive.index")
    before = archive.version
    first = find(tmp_path / "archive.index", image=ring, k=3)
    keys = [k for k, patient in archive.held().items() if patient == first.cases[0].case]
    archive.delete_keys(keys)
    now = find(tmp_path / "archive.index", image=ring, k=3)
    assert now.cases[0].case == first.cases[1].case
    then = find(tmp_path / "archive.index", image=ring, k=3, at=before)
    assert then.version == before
    assert [case.case for case in then.cases] == [case.case for case in first.cases]


def test_the_page_holds_pictures_and_reasons_and_no_script(
    clinic: Path, ring: Path, tmp_path: Path
) -> None:
    page = tmp_path / "found.html"
    answer = find(
        clinic / "archive.index", image=ring, words="<script>alert(1)</script> ring lesion",
        k=4, html=page, explain=True,
    )  # fmt: skip
    text = page.read_text()
    assert answer.html == page
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src &#x27;none&#x27;" in text
    assert "http://" not in text
    assert "https://" not in text
    assert text.count('class="heat"') == 8  # both images of four cases
    assert "<mark>Ring</mark>" in text
    assert all(case.case in text for case in answer.cases)
    for secret in ("SECRET", str(clinic), str(tmp_path), "case03"):
        assert secret not in text
    assert not any("out of reach" in note for note in answer.notes)


def test_maps_of_originals_that_are_out_of_reach_say_so(
    clinic: Path, ring: Path, tmp_path: Path
) -> None:
    shutil.copytree(clinic / "archive.index", tmp_path / "archive.index")
    for path in (tmp_path / "archive.index" / "sources").glob("*.json"):
        if path.stem != "encoder":
            path.write_text('{"relative": "gone", "absolute": "/nowhere/gone"}')
    answer = find(
        tmp_path / "archive.index", image=ring, k=2, html=tmp_path / "x.html", explain=True
    )
    assert any("2 originals are out of reach" in note for note in answer.notes)
    assert (tmp_path / "x.html").read_text().count('class="heat"') == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "an empty query finds nothing"),
        ({"words": "   "}, "an empty query finds nothing"),
        ({"words": "x", "where": "modalty = 'US'"}, "Did you mean 'modality'"),
        ({"words": "x", "where": "1=1; DROP TABLE images"}, "column"),
        ({"words": "x", "where": "modality = 'US' --"}, "--"),
        ({"words": "x", "where": "modality = 'US' UNION SELECT key FROM images"}, "UNION"),
        ({"words": "x", "where": "age > load_extension('x')"}, "load_extension|number"),
        ({"words": "x", "k": 0}, "k must be 1 or more"),
        ({"words": "x", "balance": 2.0}, "balance must lie within"),
        ({"words": "x", "explain": True}, "--explain draws on the page"),
        ({"image": "/nowhere/at/all.png"}, "does not exist"),
    ],
)
def test_wrong_queries_are_refused_in_a_word(
    clinic: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        find(clinic / "archive.index", **options)  # type: ignore[arg-type]


def test_what_is_no_archive_or_another_one(clinic: Path, ring: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent", clinic / "cohort"):
        with pytest.raises(DataError, match="is no archive"):
            find(path, image=ring)
    shutil.copytree(clinic / "archive.index", tmp_path / "archive.index")
    about = tmp_path / "archive.index" / "archive.json"
    text = about.read_text()
    about.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(DataError, match="made by another version of Vesalius"):
        find(tmp_path / "archive.index", image=ring)
    about.write_text(text.replace('"normalizer": "', '"normalizer": "0'))
    with pytest.raises(RunError, match=r"normalizer differ.*--reembed"):
        find(tmp_path / "archive.index", image=ring)
    about.write_text(text)
    with pytest.raises(DataError, match="version 99"):
        find(tmp_path / "archive.index", image=ring, at=99)
    encoder = tmp_path / "archive.index" / "sources" / "encoder.json"
    encoder.write_text('{"relative": "../gone", "absolute": "/nowhere/run"}')
    with pytest.raises(RunError, match="say with --encoder where it is"):
        find(tmp_path / "archive.index", image=ring)
    assert find(tmp_path / "archive.index", image=ring, encoder="frozen", k=1).cases
    (tmp_path / "letter.png").write_text("no image")
    with pytest.raises(DataError, match="no image of the query can be used"):
        find(clinic / "archive.index", image=tmp_path / "letter.png")


def test_the_command_line(clinic: Path, ring: Path) -> None:
    runner = CliRunner()
    base = ["find", str(clinic / "archive.index"), "--image", str(ring), "-k", "2"]
    done = runner.invoke(app, [*base, "--json"])
    assert done.exit_code == 0, done.output
    held = json.loads(done.stdout)
    assert [case["rank"] for case in held["cases"]] == [1, 2]
    done = runner.invoke(app, [*base, "--words", "ring"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("similar cases are known")
    assert f"version {held['version']}" in done.stdout
    assert "rank\tcase\tscore" in done.stdout
