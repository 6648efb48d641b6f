# SPDX-License-Identifier: Apache-2.0
"""Which of a plan's channels an image gives, and which it lacks.

A channel is found by its name (`Volume.channels`), else by the number that its file's name ends
in (`CASE_0001.nii.gz`, as nnU-Net has it), else by its place. One that is absent, or holds one
value or no number at all, is *missing*: after normalization it is 0, as it was made in training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from vesalius.errors import DataError
from vesalius.tasks.segment.neighbors import image_channels
from vesalius.types import Array, Json
from vesalius.volume import Volume

_NUMBER = re.compile(r"_(\d{4})(\.[A-Za-z0-9]+){1,2}$")


def given_channels(volume: Volume, decisions: Json) -> Array:
    """Return the plan's channels `(C, i, j, k)`; of one that the image has not, NaN.

    Raises:
        DataError: another number of channels than the plan's, and nothing says which they are.
    """
    wanted, color = image_channels(decisions), decisions["color"]
    data, have = volume.data, len(volume.data)
    order = None if color else _order(volume, decisions.get("channels", []), wanted)
    if order is not None and order != list(range(wanted)):
        out = np.full((wanted, *volume.shape), np.nan, np.float32)
        out[order] = data
        return out
    if have == wanted:
        return data
    if color and have == 1:
        return np.repeat(data, 3, axis=0)
    if color and have > 3:
        return data[:3]
    if volume.is_2d and wanted == 1 and have in (3, 4):  # a gray image stored in color
        gray: Array = data[:3].mean(axis=0, keepdims=True)
        return gray
    raise DataError(
        f"the image has {have} channel{'s' * (have > 1)}, the plan expects {wanted}"
        f"{_listed(decisions)}; {_way_out(have, wanted)}"
    )


def missing_channels(data: Array, decisions: Json) -> list[int]:
    """Return which of the channels `(C, i, j, k)` say nothing: of images whose channels may lack.

    Where all of them say nothing, none is missing: the image is as it is.
    """
    if len(data) == 1 or decisions["color"]:
        return []
    found = [n for n, channel in enumerate(data) if _says_nothing(channel)]
    return found if len(found) < len(data) else []


def missing_names(volume: Volume, decisions: Json) -> list[str]:
    """Return the names of the plan's channels that an image lacks.

    Raises:
        DataError: as `given_channels` raises.
    """
    names = channel_names(decisions)
    return [names[n] for n in missing_channels(given_channels(volume, decisions), decisions)]


def channel_names(decisions: Json) -> list[str]:
    """Return a name for each channel of a plan."""
    held: list[str] = decisions.get("channels", [])
    return held or [f"channel-{n}" for n in range(1, 1 + image_channels(decisions))]


def numbered(files: Sequence[str], count: int, most: int) -> list[int] | None:
    """Return the numbers that the names of an image's files end in, one a channel, or None.

    Args:
        files: of the image.
        count: of its channels.
        most: numbers must lie below.
    """
    found = [_NUMBER.search(PurePath(name).name) for name in files]
    numbers = [int(match[1]) for match in found if match]
    fits = len(numbers) == len(files) == count == len(set(numbers)) and max(numbers) < most
    return numbers if fits else None


def _order(volume: Volume, names: Sequence[str], wanted: int) -> list[int] | None:
    """Return the place of each of an image's channels among the plan's, or None."""
    held = volume.channels
    if held and set(held) <= set(names) and len(set(held)) == len(held):
        return [list(names).index(name) for name in held]
    if len(volume.data) < wanted and not volume.source.format.startswith("dicom"):
        return numbered(volume.source.files, len(volume.data), wanted)
    return None


def _says_nothing(channel: Array) -> bool:
    low, high = channel.min(), channel.max()
    if low == high:
        return True
    return channel.dtype.kind == "f" and bool(np.isnan(low)) and bool(np.isnan(channel).all())


def _listed(decisions: Json) -> str:
    return f": {', '.join(decisions['channels'])}" if decisions.get("channels") else ""


def _way_out(have: int, wanted: int) -> str:
    if have < wanted:
        return "say which they are (predict --channels), and the others count as missing"
    return "choose those that are meant"
