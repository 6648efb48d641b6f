# SPDX-License-Identifier: Apache-2.0
"""The image, and the mask, of one row; shared by `Cohort` and by the workers of `scan`.

A row's `member` says which image of its files is meant where they hold several: `name[12]` in an
NPZ file, `stack[1]` among the stacks of one multi-frame DICOM file, `image[2]` in a zip of DICOM.
Several files of a format without series are the channels of one image, in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vesalius import io
from vesalius.errors import GeometryError, UsageError
from vesalius.geometry import same_grid
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Array
from vesalius.volume import LabelMap, Source, Volume

if TYPE_CHECKING:
    from vesalius.io.dicom.header import Header
    from vesalius.io.dicom.series import Stack

V = TypeVar("V", bound=Volume)
_LATTICE = 0.1  # of a voxel that a mask's centers may be off the image's


def read_image(
    paths: Sequence[Path],
    format: str,  # noqa: A002  the column's name
    member: str = "",
    limits: Limits | None = None,
) -> Volume:
    """Read the image that `paths`, `format` and `member` of a row name.

    Raises what `vesalius.io.read` raises, and `GeometryError` for channels on different grids.
    """
    limits = limits or DEFAULT_LIMITS
    if format == "dicom":
        if not member:
            return io.read(list(paths), limits=limits)
        from vesalius.io.dicom.assemble import assemble
        from vesalius.io.dicom.header import read_header
        from vesalius.io.dicom.series import stacks

        headers = [(str(path), read_header(path, limits=limits)) for path in paths]
        return assemble(stacks(headers, limits=limits)[_ordinal(member)], limits=limits)
    if format == "dicom-zip" and member:
        wanted = _ordinal(member)
        for number, volume in enumerate(io.read_all(paths[0], limits=limits)):
            if number == wanted:
                return volume
        raise UsageError(f"{paths[0].name} holds no image number {wanted}")
    if len(paths) == 1:
        return io.read(paths[0], member=member, limits=limits)
    return _channels([io.read(path, limits=limits) for path in paths], paths)


def read_mask(
    paths: Sequence[Path],
    member: str,
    image: Callable[[], Volume] | None,
    names: Mapping[int, str],
    limits: Limits | None = None,
) -> LabelMap:
    """Read the mask of a row.

    Args:
        paths, member: of the mask.
        image: reads the image, where one of the two is DICOM: an RTSTRUCT is drawn on its grid, a
            mask on a part of its lattice (or turned) is laid out on all of it.
        names: of the structures, where the mask states none.
        limits: of reading.
    """
    limits = limits or DEFAULT_LIMITS
    reference = image() if image else None
    mask = io.read_labels(paths[0], member=member, reference=reference, limits=limits)
    if reference is not None:
        mask = on_lattice(mask, reference)
    return replace(mask, names=dict(names)) if names and not mask.names else mask


def members_of(stack: Stack, headers: Sequence[tuple[str, Header]], limits: Limits) -> str:
    """Return the `member` under which a stack is found among those that its own files hold."""
    from vesalius.io.dicom.series import stacks

    files = set(stack.files)
    found = stacks([(path, header) for path, header in headers if path in files], limits=limits)
    if len(found) < 2:
        return ""
    frames = [(s.path, s.frame) for s in stack.slices]
    place = [[(s.path, s.frame) for s in one.slices] for one in found].index(frames)
    return f"stack[{place}]"


def on_lattice(mask: V, image: Volume) -> V:
    """Lay a mask whose voxels are some of the image's out on the whole grid; else leave it."""
    if same_grid(mask.affine, mask.shape, image.affine, image.shape):
        return mask
    index = np.linalg.inv(image.affine) @ mask.affine
    turn = np.rint(index[:3, :3])
    if (np.abs(turn).sum(axis=0) != 1).any() or (np.abs(turn).sum(axis=1) != 1).any():
        return mask
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in mask.shape])).reshape(3, -1)
    exact = index[:3, :3] @ corners + index[:3, 3:]
    whole = turn @ corners + np.rint(index[:3, 3:])
    low, high = whole.min(axis=1).astype(int), whole.max(axis=1).astype(int)
    if np.abs(exact - whole).max() > _LATTICE or (low < 0).any() or (high >= image.shape).any():
        return mask
    axes = np.abs(turn).argmax(axis=1)  # image axis -> mask axis
    data: Array = mask.data.transpose(0, *(int(axis) + 1 for axis in axes))
    flips = [int(turn[axis, axes[axis]]) for axis in range(3)]
    data = data[(slice(None), *(slice(None, None, sign) for sign in flips))]
    whole_grid = np.zeros((len(data), *image.shape), data.dtype)
    box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    whole_grid[(slice(None), *box)] = data
    return replace(mask, data=whole_grid, affine=image.affine)


def _channels(volumes: list[Volume], paths: Sequence[Path]) -> Volume:
    first = volumes[0]
    for path, other in zip(paths[1:], volumes[1:], strict=True):
        if not same_grid(first.affine, first.shape, other.affine, other.shape):
            raise GeometryError(
                f"the channels of one case must share a grid: shapes {first.shape} and "
                f"{other.shape}, or their places, differ",
                path=str(path),
                shapes=[list(first.shape), list(other.shape)],
            )
    names = tuple(re.sub(r"\.[^.]+(\.gz)?$", "", path.name) for path in paths)
    count = sum(len(volume.data) for volume in volumes)
    return replace(
        first,
        data=np.concatenate([volume.data for volume in volumes]),
        channels=names if count == len(names) else (),
        source=Source(tuple(map(str, paths)), first.source.format),
    )


def _ordinal(member: str) -> int:
    match = re.fullmatch(r"\w+\[(\d+)\]", member)
    if not match:
        raise UsageError(f"member must look like 'stack[1]', got {member!r}")
    return int(match[1])
