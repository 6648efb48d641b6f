# SPDX-License-Identifier: Apache-2.0
"""Channels are found by name, by number or by place; one that says nothing is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError
from vesalius.normalization import Normalizer
from vesalius.tasks.segment.channels import (
    channel_names,
    given_channels,
    missing_channels,
    missing_names,
    numbered,
)
from vesalius.tasks.segment.grid import to_plan
from vesalius.volume import Source, Volume

DECISIONS = {
    "network": {"in_channels": 3}, "color": False, "channels": ["T1", "T2", "FLAIR"],
    "orientation": "RAS", "spacing": [1.0, 1.0, 1.0],
}  # fmt: skip
SHAPE = (6, 5, 13)


def image(count: int = 3, **more) -> Volume:
    data = np.random.default_rng(count).normal(50, 9, (count, *SHAPE)).astype(np.float32)
    return Volume(data, np.eye(4), **more)


@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.sampled_from(["T1", "T2", "FLAIR"]), min_size=1, unique=True))
def test_a_named_channel_comes_to_its_place(order: list[str]) -> None:
    volume = image(len(order), channels=tuple(order))
    data = given_channels(volume, DECISIONS)
    for n, name in enumerate(DECISIONS["channels"]):
        if name in order:
            np.testing.assert_array_equal(data[n], volume.data[order.index(name)])
        else:
            assert np.isnan(data[n]).all()
    assert missing_names(volume, DECISIONS) == [n for n in DECISIONS["channels"] if n not in order]


def test_a_number_at_the_end_of_the_files_name_says_which_it_is() -> None:
    files = ("/x/case_0000.nii.gz", "/x/case_0002.nii.gz")
    volume = image(2, source=Source(files, "nifti"))
    data = given_channels(volume, DECISIONS)
    np.testing.assert_array_equal(data[[0, 2]], volume.data)
    assert missing_channels(data, DECISIONS) == [1]
    dicom = replace(volume, source=Source(files, "dicom"))
    with pytest.raises(DataError, match="has 2 channels, the plan expects 3: T1, T2, FLAIR"):
        given_channels(dicom, DECISIONS)
    assert numbered(["a_0001.nii"], 1, 1) is None  # no such channel
    assert numbered(["a_0001.nii", "b_0001.nii"], 2, 3) is None
    assert numbered(["a_0001.nii"], 2, 3) is None


def test_a_number_of_channels_that_nothing_explains_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"has 1 channel, .*FLAIR; say which .*--channels"):
        given_channels(image(1), DECISIONS)
    with pytest.raises(DataError, match=r"has 4 channels, .*choose those that are meant"):
        given_channels(image(4), DECISIONS)
    plain = {**DECISIONS, "channels": []}
    assert channel_names(plain) == ["channel-1", "channel-2", "channel-3"]


@pytest.mark.parametrize("nothing", [np.nan, 0.0, 7.0])
def test_a_channel_without_content_is_zero_on_the_plans_grid(nothing: float) -> None:
    volume = image()
    lacking = volume.with_data(volume.data.copy())
    lacking.data[1] = nothing
    whole, out = (to_plan(v, DECISIONS, Normalizer()).data for v in (volume, lacking))
    assert (out[1] == 0).all()
    np.testing.assert_array_equal(out[[0, 2]], whole[[0, 2]])
    assert missing_names(lacking, DECISIONS) == ["T2"]
    assert missing_names(volume, DECISIONS) == []


def test_holes_in_a_channel_are_no_missing_channel() -> None:
    volume = image()
    volume.data[1, 2, 2, 2] = np.nan
    assert missing_names(volume, DECISIONS) == []
    with pytest.raises(DataError, match="NaN or infinite"):
        to_plan(volume, DECISIONS, Normalizer())


def test_an_image_that_says_nothing_at_all_is_refused() -> None:
    volume = image()
    with pytest.raises(DataError, match="constant"):
        to_plan(volume.with_data(0 * volume.data), DECISIONS, Normalizer())
