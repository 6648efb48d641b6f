# SPDX-License-Identifier: Apache-2.0
"""What a modality allows to be changed in training: the rules, and what the three plans decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vesalius.tasks.augmentation import (
    any_way_up,
    mirror_is_harmless,
    segmentation_changes,
    value_changes,
)
from vesalius.tasks.classify import plan as classify
from vesalius.tasks.detect import plan as detect
from vesalius.tasks.segment import plan as segment
from vesalius.tasks.targets import Target
from vesalius.training.augment import Augmentation, augment

KINDS = ("", "CT", "PT", "MR", "DX", "MG", "US", "OP", "XC", "ES", "DMS", "SM", "GM")
PHYSICAL = {"gain": 0.0, "offset": 0.0, "gamma": 0.0, "noise": 0.05}
SETS = st.sets(st.sampled_from(KINDS))

# Modalities, whether all are in color; may be mirrored, any way up, what changes of values.
RULES: list[tuple[tuple[str, ...], bool, bool, bool, dict[str, float]]] = [
    (("CT",), False, False, False, PHYSICAL),
    (("CT", "PT"), False, False, False, PHYSICAL),
    (("CT", "MR"), False, False, False, {}),  # a gain is harmless to one of them alone
    (("MR",), False, False, False, {}),
    (("DX",), False, False, False, {}),
    (("",), False, False, False, {}),
    (("US",), False, True, False, {}),
    (("US", "MR"), False, False, False, {}),
    (("US", ""), False, False, False, {}),
    (("SM",), False, True, True, {}),  # fluorescence: no dye that absorbs
    (("SM", ""), False, False, False, {}),
    (("SM",), True, True, True, {"color": 0.1, "stain": 0.3}),
    (("GM", "SM", ""), True, True, True, {"color": 0.1, "stain": 0.3}),
    (("",), True, True, True, {"color": 0.1, "stain": 0.3}),
    (("OP",), True, True, False, {"color": 0.1, "stain": 0.0}),
    (("XC", ""), True, True, False, {"color": 0.1, "stain": 0.0}),
    (("SM", "XC"), True, True, False, {"color": 0.1, "stain": 0.0}),
    (("CT",), True, False, False, PHYSICAL),
    (("MR",), True, False, False, {}),
    (("MG",), True, False, False, {}),  # three channels of another meaning
    ((), False, False, False, {}),
]


@pytest.mark.parametrize(("kinds", "color", "mirrored", "any_way", "values"), RULES)
def test_the_rules(
    kinds: tuple[str, ...], color: bool, mirrored: bool, any_way: bool, values: dict[str, float]
) -> None:
    assert mirror_is_harmless(kinds, color=color) == mirrored
    assert any_way_up(kinds, color=color) == any_way
    assert value_changes(kinds, color=color) == values
    counted = dict.fromkeys(kinds, 7)  # as a fingerprint holds them
    assert value_changes(counted, color=color) == values


@given(kinds=SETS, color=st.booleans())
def test_a_segmenter_sees_other_dyes_where_a_picture_may_be_stained(
    kinds: set[str], color: bool
) -> None:
    found = segmentation_changes(kinds, color=color)
    stained = found.pop("restain", 0.0) == 1.0
    assert stained == (color and kinds <= {"", "SM", "GM"})
    assert (found.pop("blur"), found.pop("coarse")) == (1.0, 2.0)
    assert found == value_changes(kinds, color=color)


@given(kinds=SETS, more=SETS, color=st.booleans())
def test_more_modalities_allow_no_more(kinds: set[str], more: set[str], color: bool) -> None:
    for rule in (mirror_is_harmless, any_way_up):
        if kinds:
            assert rule(kinds, color=color) >= rule(kinds | more, color=color)
        assert rule(kinds, color=True) >= rule(kinds, color=False)
    # What has no upper side has no left one.
    assert mirror_is_harmless(kinds, color=color) >= any_way_up(kinds, color=color)


@given(kinds=SETS, color=st.booleans())
def test_changes_of_values_are_settings_of_an_augmentation(kinds: set[str], color: bool) -> None:
    found = Augmentation.from_json(value_changes(kinds, color=color))
    assert (found.color, found.stain) == (0, 0) or color
    assert found.stain == 0 or any_way_up(kinds, color=color) or not kinds
    geometry = (found.rotation, found.scale, found.shift, found.flips)
    assert geometry == (15.0, 0.15, 0.08, ())  # only values


def classified(modalities: dict[str, int], **changes: Any) -> dict[str, Any]:
    """Return what a classifier's plan decides for 100 pictures."""
    found = {
        "cases": 100, "images": 100, "images_per_case": 1.0, "volumes": 0, "color": 0,
        "cases_per_class": {"0": 50, "1": 50}, "modalities": modalities, "planes": {"": 100},
        "scanners": {"": 100}, "median_side": 28.0, "median_longest_side": 28.0,
        "median_depth": 28.0,
    }  # fmt: skip
    return classify.decide(
        {**found, **changes}, Target("answer", "binary", ("0", "1")), ["0", "1"] * 50,
        model="auto", budget={"steps": 1}, case="image",
    )  # fmt: skip


def segmented(modalities: dict[str, int], **changes: Any) -> dict[str, Any]:
    """Return what a segmentation's plan decides for gray pictures."""
    found = {
        "spatial_dims": 2, "channels": 1, "modalities": modalities, "labels": {"1": "cell"},
        "median_shape": [64, 64, 1], "median_spacing": [1.0, 1.0, 1.0],
        "fine_spacing": [1.0, 1.0, 1.0],
    }  # fmt: skip
    return segment.decide({**found, **changes}, model="auto", budget={"steps": 1})


def detected(modalities: dict[str, int], **changes: Any) -> dict[str, Any]:
    """Return what a detector's plan decides for 20 gray pictures."""
    found = {
        "images": 20, "modalities": modalities, "color": 0, "calibrated": 20,
        "median_shape": [64, 64], "median_spacing": [1.0, 1.0],
        "classes": {"cell": {"boxes": 90, "images": 20, "median_count": 4, "median_side": 12.0}},
    }  # fmt: skip
    return detect.decide({**found, **changes}, model="auto", budget={"steps": 1})


def of_network(decisions: dict[str, Any]) -> dict[str, Any]:
    """Return the augmentation of a classifier's only network."""
    (network,) = decisions["networks"]
    found: dict[str, Any] = network["augmentation"]
    return found


@pytest.mark.parametrize(
    "asked",
    [
        of_network(classified({"CT": 100})),
        of_network(classified({"CT": 60, "PT": 40}, volumes=100)),
        segmented({"CT": 9})["augmentation"],
        segmented({"CT": 9}, spatial_dims=3, median_shape=[64, 64, 40])["augmentation"],
        detected({"CT": 20})["augmentation"]["values"],
    ],
)
def test_units_are_kept_but_for_noise(asked: dict[str, Any]) -> None:
    settings = Augmentation.from_json(asked)
    assert settings.noise == 0.05
    images = torch.linspace(-1000, 2000, 2 * 3 * 64).reshape(2, 3, 8, 8)
    still = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "planes": ((0, 1),), "flips": ()}
    for seed in range(5):
        quiet = replace(settings, noise=0.0, blur=0.0, coarse=1.0, chance=1.0, **still)
        found, _ = augment(images, quiet, np.random.default_rng(seed))
        torch.testing.assert_close(found, images, atol=0.01, rtol=1e-5)
        loud, _ = augment(images, replace(quiet, noise=0.05), np.random.default_rng(seed))
        assert 0 < float((loud - images).abs().max()) < 0.05 * 6


def test_a_classifier_turns_slides_and_pictures_of_unknown_kind_any_way() -> None:
    for decisions in (classified({"SM": 100}, color=100), classified({"": 100}, color=100)):
        asked = of_network(decisions)
        assert (asked["rotation"], asked["flips"]) == (180.0, [0, 1])
        assert (asked["color"], asked["stain"]) == (0.1, 0.3)
        assert decisions["networks"][0]["mirror"]
        assert decisions["frozen"][0]["mirror"]
    gray = of_network(classified({"SM": 100}))
    assert (gray["rotation"], gray["flips"]) == (180.0, [0, 1])
    assert not {"color", "stain"} & set(gray)


def test_a_classifier_keeps_upright_what_has_an_upper_side() -> None:
    fundus = of_network(classified({"OP": 100}, color=100))
    assert (fundus["rotation"], fundus["flips"]) == (15.0, [0])
    assert (fundus["color"], fundus["stain"]) == (0.1, 0.0)
    for decisions in (classified({"MR": 100}), classified({"": 100}), classified({"DX": 100})):
        asked = of_network(decisions)
        assert (asked["rotation"], asked["flips"]) == (15.0, [])
        assert not set(PHYSICAL) & set(asked)
        assert not decisions["networks"][0]["mirror"]
    partly = of_network(classified({"": 100}, color=99))  # one gray picture: they may be anything
    assert (partly["rotation"], partly["flips"]) == (15.0, [])
    assert not {"color", "stain"} & set(partly)


def test_a_segmentation_turns_slides_and_keeps_others_upright() -> None:
    for found in (segmented({"SM": 9}, channels=3), segmented({"": 9}, channels=3)):
        asked = found["augmentation"]
        assert (asked["rotation"], asked["flips"]) == (180.0, [0, 1])
        assert (asked["color"], asked["stain"], asked["restain"]) == (0.1, 0.3, 1.0)
    for found in (segmented({"": 9}), segmented({"MR": 9}), segmented({"CT": 9})):
        asked = found["augmentation"]
        assert asked["rotation"] == 15.0
        assert 1 not in asked["flips"]  # never upside down
        assert not {"color", "stain", "restain"} & set(asked)
    photo = segmented({"XC": 9}, channels=3)["augmentation"]
    assert (photo["rotation"], photo["color"], photo["stain"]) == (15.0, 0.1, 0.0)
    assert "restain" not in photo
    # A volume of three channels is no color picture.
    deep = segmented({"": 9}, channels=3, spatial_dims=3, median_shape=[64, 64, 40])
    assert deep["augmentation"]["rotation"] == 15.0
    assert not {"color", "stain"} & set(deep["augmentation"])


def test_a_detector_turns_slides_and_mirrors_photographs() -> None:
    slides = detected({"SM": 20}, color=20)
    assert slides["augmentation"]["flips"] == [0, 1]
    assert slides["augmentation"]["transpose"]
    assert slides["augmentation"]["values"] == {"color": 0.1, "stain": 0.3}
    assert slides["mirrored_answers"] == [0, 1]
    photos = detected({"OP": 20}, color=20)
    assert photos["augmentation"]["flips"] == [0]
    assert not photos["augmentation"]["transpose"]
    assert photos["augmentation"]["values"] == {"color": 0.1, "stain": 0.0}
    xray = detected({"DX": 20})
    assert xray["augmentation"]["flips"] == []
    assert not xray["augmentation"]["transpose"]
    assert xray["augmentation"]["values"] == {}
    assert xray["mirrored_answers"] == []
    # Whether an image states its scale says nothing of its sides.
    for calibrated in (0, 20):
        assert detected({"": 20}, color=20, calibrated=calibrated)["augmentation"]["transpose"]
