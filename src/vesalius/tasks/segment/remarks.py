# SPDX-License-Identifier: Apache-2.0
"""What a plan's audit says of its images and masks before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from vesalius.tasks.segment.channels import channel_names
from vesalius.types import Json


def remarks(found: Json, decisions: Json) -> list[str]:
    """Return, line by line, what of the training data is left out or taken in a way to know of.

    Args:
        found: of `fingerprint`.
        decisions: of the plan.
    """
    return [*_on_structures(found, decisions), *_on_masks(found), *_on_images(found, decisions)]


def _on_structures(found: Json, decisions: Json) -> Iterator[str]:
    labels = found["labels"]
    used = {value for values in decisions["structures"].values() for value in values}
    used |= set(decisions["ignore"])
    rest = [name for value, name in labels.items() if int(value) not in used]
    if rest:
        yield f"labels that are not learned count as background: {', '.join(rest)}"
    if decisions["ignore"]:
        names = ", ".join(labels[str(value)] for value in decisions["ignore"])
        yield f"voxels of {names} are ignored: in training, in validation and in scores"
    if decisions["regions"]:
        yield (
            "structures overlap: each is answered by itself, and a label map that comes back has "
            "a layer for each"
        )


def _on_masks(found: Json) -> Iterator[str]:
    read = found["masks_read"]
    if found["masks_empty"]:
        yield f"{found['masks_empty']} of {read} training masks mark nothing: taken as it stands"
    for why, count in found["masks_unusable"].items():
        yield f"{count} of {read} training masks are left out: {why}"


def _on_images(found: Json, decisions: Json) -> Iterator[str]:
    images, channels = found["images"], found["channels"]
    if channels > 1 and not decisions["color"]:
        yield f"each image has {channels} channels: {', '.join(channel_names(decisions))}"
    if found["fewer_channels"]:
        yield (
            f"{found['fewer_channels']} of {images} training images lack channels, and their files "
            "say which: these count as missing"
        )
    if found["other_channels"] and not decisions["color"]:
        yield (
            f"{found['other_channels']} of {images} training images are left out: they have "
            f"another number of channels than {channels}"
        )
    if found["single_slices"]:
        yield (
            f"{found['single_slices']} of {images} training images are left out: single slices "
            "among volumes"
        )
