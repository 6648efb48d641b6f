# SPDX-License-Identifier: Apache-2.0
"""What is asked to be learned becomes structures, and a mask becomes codes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vesalius.errors import DataError, UsageError
from vesalius.tasks.segment.choice import choose
from vesalius.tasks.segment.compare import compare
from vesalius.tasks.segment.structures import Structures
from vesalius.volume import LabelMap

KNOWN = {"1": "anterior", "2": "posterior", "5": "liver, left", "7": "cyst"}


def mask_of(*layers: np.ndarray) -> LabelMap:
    return LabelMap(np.stack(layers), np.eye(4))


@pytest.mark.parametrize(
    ("labels", "structures", "values", "regions"),
    [
        ("", {n: [int(v)] for v, n in KNOWN.items()}, [1, 2, 5, 7], False),
        ("posterior, anterior", {"posterior": [2], "anterior": [1]}, [2, 1], False),
        ("7", {"cyst": [7]}, [7], False),
        ("both=anterior+2,cyst", {"both": [1, 2], "cyst": [7]}, [1, 2], False),
        ("whole=1+2,posterior", {"whole": [1, 2], "posterior": [2]}, [1, 2], True),
        ("side=5", {"side": [5]}, [5], False),
    ],
)
def test_labels_are_chosen_by_name_and_value(labels, structures, values, regions) -> None:
    found = choose(KNOWN, labels=labels)
    assert found["structures"] == structures
    assert found["labels"] == list(structures)
    assert found["values"] == values
    assert found["regions"] is regions
    assert found["ignore"] == []


def test_labels_that_meet_in_some_mask_are_regions() -> None:
    assert choose(KNOWN, [(1, 2)])["regions"]
    assert choose(KNOWN, [(1, 2)])["values"] == [1, 2, 5, 7]  # each is a value of its own
    assert not choose(KNOWN, [(1, 2)], labels="posterior,cyst")["regions"]
    assert not choose(KNOWN, [(1, 2)], labels="whole=1+2,cyst")["regions"]
    assert not choose(KNOWN, [(1, 2)], ignore="anterior")["regions"]


def test_what_is_ignored_is_not_learned() -> None:
    found = choose(KNOWN, ignore="cyst,2")
    assert found["ignore"] == [7, 2]
    assert found["labels"] == ["anterior", "liver, left"]


@pytest.mark.parametrize(
    ("labels", "ignore", "message"),
    [
        ("anterio", "", r"no training mask holds the label 'anterio' .*anterior \(1\).*Did you"),
        ("anterior+posterior", "", r"name what they make: NAME=anterior\+posterior"),
        ("3", "", "no training mask holds the label '3' that --labels"),
        ("cyst,cyst", "", "'cyst' comes twice"),
        ("x=cyst+7", "", "names a label twice"),
        ("=1+2", "", r"gives no name; write NAME=1\+2"),
        ("", "nothing", "no training mask holds the label 'nothing' that --ignore"),
        ("whole=1+2", "2", "'posterior' is to be ignored, and 'whole' is to be learned of it"),
        ("", "1,2,5,7", "nothing is left to learn"),
    ],
)
def test_a_wrong_choice_is_named(labels: str, ignore: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(KNOWN, labels=labels, ignore=ignore)


def test_too_many_structures_are_refused() -> None:
    many = {str(n): f"s{n}" for n in range(1, 400)}
    with pytest.raises(UsageError, match="at most 254 structures can be learned"):
        choose(many)
    few = {str(n): f"s{n}" for n in range(1, 25)}
    with pytest.raises(UsageError, match="at most 23 structures that overlap"):
        choose(few, [(1, 2)])


MASKS = arrays(np.uint8, (1, 4, 3, 2), elements=st.sampled_from([0, 1, 2, 5, 7]))


@settings(max_examples=40, deadline=None)
@given(data=MASKS, joined=st.booleans(), ignore=st.sampled_from(["", "cyst"]))
def test_regions_of_structures_that_are_apart_are_the_classes(data, joined, ignore) -> None:
    labels = "whole=1+2,5" if joined else "posterior,anterior,5"
    apart = Structures.of(choose(KNOWN, labels=labels, ignore=ignore))
    regions = replace(apart, regions=True)
    mask = LabelMap(data, np.eye(4))
    one, other = apart.encode(mask), regions.encode(mask)
    for index in range(1, 1 + len(apart.sources)):
        np.testing.assert_array_equal(apart.members(one, index), regions.members(other, index))
    np.testing.assert_array_equal(apart.ignores(one), regions.ignores(other))
    np.testing.assert_array_equal(apart.places(one)[0], regions.places(other).max(axis=0))


@settings(max_examples=40, deadline=None)
@given(data=MASKS, found=MASKS, other=MASKS, regions=st.booleans())
def test_what_lies_in_ignored_voxels_changes_no_score(data, found, other, regions) -> None:
    labels = "whole=1+2,posterior,5" if regions else ""
    chosen = choose(KNOWN, labels=labels, ignore="cyst")
    structures = Structures.of(chosen)
    codes = structures.encode(LabelMap(data, np.eye(4)))
    answers = []
    for inside in (found, other):
        answer = np.where(data == 7, inside, found)
        places = structures.places(structures.encode(LabelMap(answer, np.eye(4))))
        values = np.array([0, *structures.values], np.uint8)[places]
        answers.append(compare(LabelMap(values, np.eye(4)), codes, structures))
    assert answers[0] == answers[1]


def test_a_voxel_of_two_structures_has_both_bits_and_an_ignored_one_none() -> None:
    one = np.array([1, 1, 0, 7, 2], np.uint8).reshape(5, 1, 1)
    two = np.array([0, 2, 2, 2, 0], np.uint8).reshape(5, 1, 1)
    chosen = choose(KNOWN, [(1, 2)], labels="anterior,posterior", ignore="cyst")
    structures = Structures.of(chosen)
    codes = structures.encode(mask_of(one, two)).ravel()
    assert codes.tolist() == [0b010, 0b110, 0b100, 0b001, 0b100]
    assert structures.code_dtype == np.uint8
    assert structures.layers == 2


def test_structures_that_overlap_in_a_mask_are_refused_where_they_must_not() -> None:
    layer = np.ones((2, 2, 2), np.uint8)
    structures = Structures.of(choose(KNOWN, labels="anterior,posterior"))
    with pytest.raises(DataError, match="'anterior' and 'posterior' overlap in the mask"):
        structures.encode(mask_of(layer, 2 * layer))
    same = structures.encode(mask_of(layer, layer))  # a value means one structure in every layer
    assert (same == 1).all()


def test_codes_of_many_structures_need_more_bits() -> None:
    known = {str(n): f"s{n}" for n in range(1, 19)}
    structures = Structures.of(choose(known, [(1, 18)]))
    assert structures.code_dtype == np.uint32
    one, two = (np.full((1, 1, 1), n, np.uint8) for n in (1, 18))
    assert int(structures.encode(mask_of(one, two))[0, 0, 0]) == 2**1 + 2**18


def test_a_plan_without_structures_learns_one_value_each() -> None:
    structures = Structures.of({"labels": ["a", "b"], "values": [3, 7]})
    assert structures.sources == {"a": [3], "b": [7]}
    assert structures.marked == [3, 7]
    assert not structures.regions
