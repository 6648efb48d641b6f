# SPDX-License-Identifier: Apache-2.0
"""A run's report: true to metrics.json, self-contained, free of names and paths."""

from __future__ import annotations

import json
import re
import time

import pandas as pd
import pytest

from vesalius.errors import RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.reporting import write_card, write_check, write_index, write_report


def assert_self_contained(html):
    """No request can leave the page: no address but data:, fragments and files beside it."""
    addresses = re.findall(r'(?:src|href|action|data|poster|srcset)="([^"]*)"', html)
    assert addresses
    assert all(a.startswith(("data:image/", "#")) for a in addresses)
    assert not re.search(r"url\(|@import|<script|<link|<iframe|<object|javascript:", html)
    assert not re.search(r"<[^>]+\son\w+=", html)
    assert "default-src &#x27;none&#x27;" in html


def words_of(html):
    return re.sub(r'"data:image/[^"]*"', '""', html)


def test_classification_report(classifier, cohort):
    path = write_report(classifier, cohort)
    html = path.read_text(encoding="utf-8")
    assert_self_contained(html)
    metrics = read_json(classifier / "metrics.json")["splits"]["test"]
    shown = re.findall(r'<data value="([^"]+)">', html)
    for score in metrics["scores"]:
        assert repr(float(score["value"])) in shown
        assert f"{score['low']:.3f}"[:4] in html
    assert html.count("<figure") >= 3 + 4 + 12
    assert "All images of this cohort are simulated (48 of 48)" in html
    assert "Failed, and counted as wrong: 1 of 12" in html
    cards = re.findall(r"<article.*?</article>", html)
    assert len(cards) == 12
    assert "failed" in cards[0]
    assert cards[0].count("<img") == 2  # CT and MR of the patient
    losses = [case["loss"] for case in read_json(classifier / "report.json")["cases"][1:]]
    assert losses == sorted(losses, reverse=True)
    assert "vesalius train classify COHORT --target diagnosis" in html
    assert "0123456789abcdef" in html
    assert cohort.digest() in html


def test_segmentation_report(segmenter, cohort):
    html = write_report(segmenter, cohort).read_text(encoding="utf-8")
    assert_self_contained(html)
    content = read_json(segmenter / "report.json")
    assert content["cases"][0]["failed"]
    dices = [case["dice"] for case in content["cases"][1:]]
    assert dices == sorted(dices)
    cards = re.findall(r"<article.*?</article>", html)
    assert len(cards) == 12
    assert all("contours of truth and prediction" in card for card in cards)
    assert "tolerance 2 mm" in html


def test_report_of_a_detector(detector, smears):
    html = write_report(detector, smears).read_text(encoding="utf-8")
    assert_self_contained(html)
    metrics = read_json(detector / "metrics.json")["splits"]["test"]
    shown = re.findall(r'<data value="([^"]+)">', html)
    assert all(repr(float(score["value"])) in shown for score in metrics["scores"])
    assert "the error of the count of cell, which gains least of all classes, is" in html
    assert "(always 2)" in html
    assert "<h1>Counting: cell, nucleus</h1>" in html
    cards = re.findall(r"<article.*?</article>", html)
    assert "failed" in cards[0]
    assert '<span class="bad">7</span> (6 to 7), truth 4' in cards[1]
    assert '<span class="bad">5</span> (4 to 5), truth 4' in cards[2]
    assert "1 or more" in html
    assert all(card.count("<img") == 1 for card in cards)
    assert "Dashed boxes: truth." in html
    assert html.count("counts of cell against the truth") == 1
    assert "precision over recall" in html
    assert "All images as a table (16 of 16)" in html
    write_card(detector)
    card = (detector / "card.md").read_text()
    assert "This model counts objects: cell, nucleus." in card
    for text in (words_of(html), card, (detector / "report.json").read_text()):
        assert not any(name in text for name in ("DOE", "JANE", str(detector.parent)))


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_names_and_paths_stay_out(kind, cohort, request):
    run = request.getfixturevalue(kind)
    write_report(run, cohort)
    write_card(run)
    pages = [run / name for name in ("report.html", "report.json", "card.md")]
    pages.append(write_check(cohort, run / "check.html"))
    for page in pages:
        text = words_of(page.read_text(encoding="utf-8"))
        for name in ("DOE", "JANE", str(run.parent), cohort.path.name):
            assert name not in text, page.name


def test_json_holds_the_same_as_the_page(classifier, cohort):
    html = words_of(write_report(classifier, cohort).read_text(encoding="utf-8"))
    content = json.loads((classifier / "report.json").read_text(encoding="utf-8"))
    assert content["metrics"] == read_json(classifier / "metrics.json")["splits"]["test"]
    assert content["headline"]["sentence"] in html
    for entry in content["findings"]:
        assert entry["name"] in html
    subset = content["cohort"]["subsets"]
    assert sum(part["images"] for part in subset.values()) == 48
    assert subset["test"]["labels"] == {"benign": 16, "malignant": 8}
    assert content["findings"][0]["name"] == "missing-slices"


def test_hostile_labels_are_words(classifier, cohort):
    bad = "<script>alert(1)</script>"
    metrics = json.loads((classifier / "metrics.json").read_text().replace("malignant", bad))
    write_json(classifier / "metrics.json", metrics)
    table = pd.read_parquet(classifier / "predictions.parquet")
    table = table.replace("malignant", bad).rename(columns={"p_malignant": f"p_{bad}"})
    table.to_parquet(classifier / "predictions.parquet")
    html = write_report(classifier, cohort).read_text(encoding="utf-8")
    assert_self_contained(html)
    assert "&lt;script&gt;" in html


def test_a_prediction_file_outside_the_run_is_not_read(segmenter, cohort):
    table = pd.read_parquet(segmenter / "predictions.parquet")
    table["file"] = "../elsewhere.nii.gz"
    table.to_parquet(segmenter / "predictions.parquet")
    html = write_report(segmenter, cohort).read_text(encoding="utf-8")
    assert len(re.findall(r"<article.*?</article>", html)) == 12


def test_a_split_that_was_not_scored_is_named(classifier, cohort):
    with pytest.raises(UsageError, match=r"\['test'\], got 'val'"):
        write_report(classifier, cohort, split="val")
    (classifier / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"metrics\.json"):
        write_report(classifier, cohort)


def test_an_undefined_score_is_shown_as_such(classifier, cohort):
    metrics = read_json(classifier / "metrics.json")
    for score in metrics["splits"]["test"]["scores"]:
        score |= {"value": None, "low": None, "high": None, "note": "one class only"}
    write_json(classifier / "metrics.json", metrics)
    html = write_report(classifier, cohort).read_text(encoding="utf-8")
    assert "no score is defined" in html
    assert "one class only" in html
    assert not re.search(r"\bnan\b", words_of(html), re.IGNORECASE)


def test_a_report_takes_seconds(classifier, cohort):
    write_report(classifier, cohort)
    start = time.perf_counter()
    write_report(classifier, cohort)
    assert time.perf_counter() - start < 10


def test_check_page(cohort, tmp_path):
    path = write_check(cohort, tmp_path)
    assert path == tmp_path / "check.html"
    html = path.read_text(encoding="utf-8")
    assert_self_contained(html)
    assert "3 errors" in html
    assert "no picture: corrupt-file" in html
    cards = re.findall(r"<article.*?</article>", html)
    assert len(cards) == 3
    assert "extreme-noise" in cards[0]  # an error and a warning: the worst image
    assert "slice 5 (0 to 11)" in html
    assert "Way out" in html


def test_check_page_of_clean_data(cohort, tmp_path):
    cohort.found = cohort.found.iloc[:0]
    html = write_check(cohort, tmp_path / "clean.html").read_text(encoding="utf-8")
    assert "Nothing was found" in html


def test_card_states_scores_license_and_hashes(segmenter, cohort):
    card = write_card(segmenter).read_text(encoding="utf-8")
    scores = read_json(segmenter / "metrics.json")["splits"]["test"]["scores"]
    for score in scores:
        assert f"{score['value']:.3f}"[:4] in card
    assert "License of the data, inherited by this model: CC0-1.0 (simulated)" in card
    assert "0123456789abcdef" in card
    assert cohort.digest() in card
    assert "not a medical device" in card


def test_index_links_beside_itself_and_holds_its_pictures(tmp_path):
    from PIL import Image

    preview = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(preview)
    other = tmp_path / "run 1" / "report.html"
    path = write_index(
        tmp_path / "index.html", title="T", notice="N", pages=[("R", other)], previews=[preview]
    )
    html = path.read_text(encoding="utf-8")
    assert 'href="run%201/report.html"' in html
    assert "data:image/png;base64," in html
    with pytest.raises(UsageError, match="previews"):
        write_index(path, title="T", pages=[], previews=[tmp_path / "a.exe"])
