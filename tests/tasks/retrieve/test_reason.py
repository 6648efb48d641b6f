# SPDX-License-Identifier: Apache-2.0
"""Which stretches of a text match a query, and which say the contrary."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.tasks.retrieve.reason import marked

PARTS = ("no", "effusion", "ring-enhancing", "lesion,", "3", "mm", ".", "but", "without", "–", "é")
WORDS = st.lists(st.sampled_from(PARTS), max_size=12).map(" ".join)


def _marks(text: str, words: str) -> list[tuple[str, str]]:
    return [(one.text, one.mark) for one in marked(text, words) if one.mark]


def test_what_matches_whatever_its_form() -> None:
    assert _marks("Ring-enhancing lesions, 3mm.", "ring enhancing lesion of 3 mm") == [
        ("Ring", "match"), ("enhancing", "match"), ("lesions", "match"), ("3mm", "match"),
    ]  # fmt: skip


def test_what_is_denied_says_the_contrary() -> None:
    text = "No effusion. Mass in the lung."
    assert _marks(text, "effusion and mass") == [("effusion", "contrary"), ("Mass", "match")]
    assert _marks(text, "no effusion") == [("effusion", "match")]
    assert _marks("Large effusion", "no effusion") == [("effusion", "contrary")]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WORDS, WORDS)
def test_joined_stretches_are_the_text(text: str, words: str) -> None:
    found = marked(text, words)
    assert "".join(one.text for one in found) == text
    assert all(one.text for one in found)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WORDS)
def test_a_text_never_contradicts_itself(text: str) -> None:
    said = {one.text.casefold() for one in marked(text, text) if one.mark == "match"}
    denied = {one.text.casefold() for one in marked(text, text) if one.mark == "contrary"}
    assert not denied - said
