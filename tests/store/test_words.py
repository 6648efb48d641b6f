# SPDX-License-Identifier: Apache-2.0
"""Terms of medical text: hyphens, units, plurals, accents, and what a "no" negates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.store.stems import stem
from vesalius.store.words import NEGATED, plain, spans, terms

_SAID = "ring enhancing lesion left frontal lobe mass effusion cyst liver T2 MRI nodule edema 3 L4"
_PLAIN_WORDS = st.sampled_from(_SAID.split())
_PIECES = ["no", " mm", "non-", " but ", "cysts", *"abno x-23.,;:mMeé'’\u0301/%\n×"]
_TEXTS = st.lists(st.sampled_from(_PIECES), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ring-enhancing", "ring enhancing"),
        ("Ring-Enhancing Lesions", "ring enhancing lesion"),
        ("3 mm", "3mm"),
        ("3-mm nodules", "3 MM nodule"),
        ("2.5 cm", "2,5cm"),
        ("45-year-old", "45 years old"),
        ("T2-weighted", "T2 weighted"),
        ("L4-L5", "l4 l5"),
        ("post-operative", "post operative"),
        ("non-enhancing", "nonenhancing"),
        ("x-rays", "X ray"),
        ("Ménière’s", "Me\u0301nie\u0300re's"),
        ("enhancement", "enhances"),
        ("metastases", "metastasis"),
        ("vertebrae", "vertebra"),
        ("emboli", "embolus"),
        ("masses", "mass"),
        ("biopsies", "biopsy"),
        ("abdominal aortic aneurysms", "abdominal aortic aneurysm"),
        ("no effusion", "without effusions"),
        ("effusion was ruled out", "denies effusion"),
        ("no evidence of effusion", "negative for effusion"),
        ("w/o edema", "no edema"),
        ("64 y/o", "64 YO"),
    ],
)
def test_said_otherwise(one: str, other: str) -> None:
    assert terms(one) == terms(other) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hepatic", "hepatitis"),
        ("CNS", "CN"),
        ("AIDS", "aid"),
        ("enhancing", "non-enhancing"),
        ("3 mm", "3 cm"),
        ("effusion", "no effusion"),
        ("pelvis", "pelvi"),
        ("ileum", "ilium"),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert not set(terms(one)) & set(terms(other))


@pytest.mark.parametrize(
    ("text", "seen", "ruled_out"),
    [
        ("No effusion, pneumothorax or consolidation.", "", "effusion pneumothorax consolidation"),
        ("No effusion but a mass", "mass", "effusion"),
        ("No effusion. Mass.", "mass", "effusion"),
        ("No effusion; mass", "mass", "effusion"),
        ("Mass without calcification", "mass", "calcification"),
        ("Patient denies fever, has cough; no chills", "patient", "fever cough chills"),
        ("Mass. Effusion and edema were ruled out.", "mass", "effusion edema"),
        ("Hydrocephalus is not seen, however there is edema", "edema", "hydrocephalus"),
        ("No interval change of the mass", "interval change mass", ""),
        ("Cannot rule out: not ruled out abscess", "rule ruled abscess", ""),
        ("Gram negative rods", "gram negative rods", ""),
        ("Neither effusion nor edema", "", "effusion edema"),
        ("Nodule, node, north", "nodule node north", ""),
        ("No effusion there is a mass", "mass", "effusion"),
    ],
)
def test_what_is_negated(text: str, seen: str, ruled_out: str) -> None:
    found = terms(text)
    assert {t for t in found if t.startswith(NEGATED)} == {
        NEGATED + stem(w) for w in ruled_out.split()
    }
    assert {stem(w) for w in seen.split()} <= set(found)
    assert not {stem(w) for w in ruled_out.split()} & set(found)


def test_spans_show_what_matched() -> None:
    text = "Large ring-enhancing lesion; no Ödem, 3 mm"
    shown = [(one.term, text[one.start : one.end]) for one in spans(text)]
    assert shown == [
        ("larg", "Large"), ("ring", "ring"), ("enhanc", "enhancing"), ("lesion", "lesion"),
        ("no:odem", "Ödem"), ("no:3mm", "3 mm"),
    ]  # fmt: skip
    assert plain("no:odem") == plain("odem") == "odem"


@settings(deadline=None)
@given(_TEXTS)
def test_spans_lie_in_the_text_in_order(text: str) -> None:
    found = spans(text)
    assert [one.term for one in found] == terms(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert [one.start for one in found] == sorted(one.start for one in found)
    assert all(one.term and " " not in one.term for one in found)


@settings(deadline=None)
@given(_TEXTS)
def test_case_is_no_matter(text: str) -> None:
    assert terms(text.upper()) == terms(text.lower()) or not text.isascii()


@settings(deadline=None)
@given(st.lists(_PLAIN_WORDS, min_size=1, max_size=8))
def test_a_list_after_no_is_negated_whole(words: list[str]) -> None:
    said = terms(" ".join(words))
    assert terms("no " + ", ".join(words)) == [NEGATED + one for one in terms(", ".join(words))]
    assert terms("mass. " + " ".join(words)) == ["mass", *said]
    assert terms("-".join(["a", *words])) or said == []


@settings(deadline=None)
@given(st.text(st.characters(whitelist_categories=["Ll", "Lo", "Nd"]), max_size=12))
def test_stems_are_stable_and_never_empty(word: str) -> None:
    assert stem(word) == stem(word)
    assert bool(stem(word)) == bool(word)
    assert len(stem(word)) <= len(word) + 2


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_has_terms_or_none(text: str) -> None:
    assert all(isinstance(term, str) and term.split() == [term] for term in terms(text))
