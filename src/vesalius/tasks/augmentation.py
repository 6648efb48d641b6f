# SPDX-License-Identifier: Apache-2.0
"""What may be changed of an image in training without changing what it shows, by its modality."""

from __future__ import annotations

from collections.abc import Iterable

from vesalius.types import Json

_COLORED = {"SM", "GM", "OP", "ES", "XC", "DMS"}  # modalities that give color pictures
_UNITS = {"CT", "PT"}  # values are physical: a change of gain would be another tissue
_SLIDES = {"SM", "GM"}
# Modalities that show the same when mirrored: no organ lies on a known side of the picture.
_MIRRORED = {"US", "IVUS", "OP", "OPT", "OPV", "ES", "XC", "DMS", *_SLIDES}


def mirror_is_harmless(modalities: Iterable[str], *, color: bool = False) -> bool:
    """Return whether images of all these modalities may be mirrored.

    Args:
        modalities: of the images, `` where unknown.
        color: all of them are color pictures; those of an unknown modality may then be mirrored,
            as those of every modality that gives color pictures may.
    """
    found = set(modalities)
    return bool(found) and found <= (_MIRRORED | {""} if _colored(found, color) else _MIRRORED)


def any_way_up(modalities: Iterable[str], *, color: bool = False) -> bool:
    """Return whether the images have neither an upper nor a left side.

    Slides have not; nor, as far as anybody knows, have color pictures of an unknown modality.
    """
    found = set(modalities)
    return bool(found) and found <= (_SLIDES | {""} if _colored(found, color) else _SLIDES)


def value_changes(modalities: Iterable[str], *, color: bool) -> Json:
    """Return the part of an `Augmentation` that changes values.

    Images whose values are physical keep them, but for noise. Stained slides vary in the amount of
    dye, other color pictures in hue, saturation and the channels' gains; where the modality is
    unknown, a color picture may be either.

    Args:
        modalities: of the images, `` where unknown.
        color: all of them are color pictures.
    """
    found = set(modalities)
    if found and found <= _UNITS:
        return {"gain": 0.0, "offset": 0.0, "gamma": 0.0, "noise": 0.05}
    if not _colored(found, color):
        return {}
    slides = found <= _SLIDES | {""}
    return {"color": 0.1, "stain": 0.3 if slides else 0.0}


def segmentation_changes(modalities: Iterable[str], *, color: bool) -> Json:
    """Return the part of an `Augmentation` that changes how an image looks, for segmentation.

    Besides what `value_changes` allows, some images are blurred or seen on a coarser grid, as in
    nnU-Net (Isensee et al., Nature Methods 2021); and slides, and color pictures of an unknown
    modality, come in the colors of other dyes: a structure is where it is in any stain, whereas a
    cell's kind may lie in its color.

    Args:
        modalities: of the images, `` where unknown.
        color: all of them are color pictures.
    """
    changes = {**value_changes(modalities, color=color), "blur": 1.0, "coarse": 2.0}
    if _colored(found := set(modalities), color) and found <= _SLIDES | {""}:
        changes["restain"] = 1.0
    return changes


def _colored(modalities: set[str], color: bool) -> bool:
    """Return whether three channels are red, green and blue, as in no MR of three sequences."""
    return color and modalities <= _COLORED | {""}
