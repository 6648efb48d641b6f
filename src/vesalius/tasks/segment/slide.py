# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference in bounded memory: overlapping patches, weighted by a Gaussian.

Isensee et al.: nnU-Net, Nature Methods 2021 (overlap one half, sigma an eighth of the patch). The
logits of the whole image are never held: windows go along one axis, and what no later window
touches is handed on and forgotten.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vesalius.errors import BudgetError
from vesalius.tasks.segment.neighbors import neighbors, with_neighbors
from vesalius.tasks.segment.rolling import RollingSum, Take
from vesalius.types import Array, Json, Shape3

_BATCH_BYTES = 64 << 20  # of the widest feature map, or the logits, of one call of the network
_WIDTH = 64  # channels that a network holds at once at its finest level, about

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Unseen:
    """Windows that the network is not asked for.

    Attributes:
        holds: whether the window that begins at a voxel is one of them.
        logits: `(classes,)`, the answer in each of their voxels.
    """

    holds: Callable[[Shape3], bool]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Every decision of one pass over an image, taken before any work.

    Attributes:
        shape: of the image, `(i, j, k)`.
        patch: of a window; 1 along k for a network with 2 axes.
        flat: whether the network has 2 axes.
        neighbors: slices on each side that such a network sees beside its own.
        classes: that the network answers.
        starts: first voxels of the windows along each axis, negative where the patch is larger
            than the image.
        axis: along which windows go, and planes of logits are finished.
        cut: the wider of the other two axes.
        strips: first and last-plus-one voxel along `cut` of what is summed at one time.
        batch: windows of one call of the network.
        bytes: what the pass takes at its peak, beside the image and the network's own features.
    """

    shape: Shape3
    patch: Shape3
    flat: bool
    neighbors: int
    classes: int
    starts: tuple[tuple[int, ...], ...]
    axis: int
    cut: int
    strips: tuple[tuple[int, int], ...]
    batch: int
    bytes: int

    @property
    def windows(self) -> int:
        """Windows of the pass; those that several strips need are counted, and computed, again."""
        return sum(1 for strip in self.strips for _ in self.places(strip))

    def places(self, strip: tuple[int, int]) -> Iterator[Shape3]:
        """Yield the first voxels of the windows that touch a strip, in order along `axis`."""
        low, high = strip
        starts = list(self.starts)
        reach = self.patch[self.cut]
        starts[self.cut] = tuple(s for s in starts[self.cut] if s < high and s + reach > low)
        order = [self.axis, *(axis for axis in range(3) if axis != self.axis)]
        for found in itertools.product(*(starts[axis] for axis in order)):
            i, j, k = (found[order.index(axis)] for axis in range(3))
            yield i, j, k

    def __str__(self) -> str:
        strips = f" in {len(self.strips)} strips" if len(self.strips) > 1 else ""
        windows = "1 window" if self.windows == 1 else f"{self.windows} windows"
        return f"{windows}{strips}, {self.bytes / 2**20:.0f} MiB"


def lay_out(
    shape: Shape3, decisions: Json, *, classes: int, memory: int, several: bool = False
) -> Layout:
    """Return how to slide over an image within `memory` bytes, for any number of classes.

    Sums are kept for as many planes as a window is deep. Where they exceed the memory, the wider
    of the other axes is cut into strips, one done after the other.

    Args:
        shape: of the image on the plan's grid, `(i, j, k)`.
        decisions: patch and overlap.
        classes: that the network answers, background included.
        memory: bytes on the network's device.
        several: whether an answer is the mean of several (`ensemble.log_mean`).

    Raises:
        BudgetError: not even the thinnest strip fits.
    """
    patch = patch3(decisions)
    starts = tuple(
        _starts(n, int(p), decisions["overlap"]) for n, p in zip(shape, patch, strict=True)
    )
    sizes = np.array(shape)
    planes = np.minimum(patch, sizes) + 1  # and the last finished one
    axis = int((planes / sizes).argmin())
    others = [n for n in range(3) if n != axis]
    cut, whole = sorted(others, key=lambda n: -shape[n])
    voxels = int(np.prod(patch))
    each = 4 * (classes + 1) * int(planes[axis]) * shape[whole]  # of one voxel along `cut`
    thin = each * min(2, shape[cut])
    logits = 4 * voxels * classes
    fit = _BATCH_BYTES // (4 * voxels * max(classes, _WIDTH))
    copies = 2  # of a batch's answer: as computed, as float32
    if several:  # and logarithms with their sum, of regions those of the complement too
        copies = 6 if decisions.get("regions", False) else 4
    fit = min(fit, (min(memory // 4, memory - thin) // logits - 1) // copies)
    batch = max(1, min(fit, int(np.prod([len(along) for along in starts]))))
    answers = logits * (copies * batch + 1)  # and an empty window's
    room = (memory - answers) // each  # voxels along `cut`
    if room < min(2, shape[cut]):
        raise BudgetError(
            f"an image of {'x'.join(map(str, shape))} voxels and {classes} classes needs at least "
            f"{-(-(answers + thin) // 2**20)} MiB, allowed are {memory // 2**20} MiB; allow more "
            "memory"
        )
    strips = _strips(shape[cut], room)
    return Layout(
        shape=shape,
        patch=(int(patch[0]), int(patch[1]), int(patch[2])),
        flat=len(decisions["patch"]) == 2,
        neighbors=neighbors(decisions),
        classes=classes,
        starts=starts,
        axis=axis,
        cut=cut,
        strips=strips,
        batch=batch,
        bytes=answers + each * max(b - a for a, b in strips),
    )


def slide(
    network: Network,
    image: Array,
    layout: Layout,
    take: Take,
    *,
    device: torch.device | str = "cpu",
    unseen: Unseen | None = None,
) -> None:
    """Hand on the logits of an image `(C, i, j, k)`, block by block.

    Every voxel is in a block, and so is every pair of neighbors along each axis, so that what
    lies between them can be interpolated.

    Args:
        network: `(N, C, ...)` to `(N, classes, ...)`, with 2 axes (slice by slice) or 3.
        image: on the plan's grid; windows beyond its edge are filled with its smallest value.
        layout: of `lay_out` for the image's shape.
        take: is given each block `(classes, i, j, k)` float32 and the voxel where it begins. The
            block is overwritten once `take` returns.
        device: of the network's answers, where they are summed.
        unseen: windows that are answered without the network.
    """
    weight = torch.from_numpy(_gaussian(layout.patch)).to(device)
    for strip in layout.strips:
        _slide_strip(network, image, layout, strip, weight, take, unseen)


def patch3(decisions: Json) -> Array:
    """Return the patch with three axes: a 2D patch has one slice."""
    return np.array([*decisions["patch"], 1][:3])


def quarter_of(device: torch.device) -> int:
    """Return a quarter of the device's memory in bytes, the machine's where it has none."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1]) // 4
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def _slide_strip(
    network: Network,
    image: Array,
    layout: Layout,
    strip: tuple[int, int],
    weight: Tensor,
    take: Take,
    unseen: Unseen | None,
) -> None:
    """Hand on the logits of one strip; its sums are gone before the next one's are there."""
    low, high = [0, 0, 0], list(layout.shape)
    low[layout.cut], high[layout.cut] = strip
    total = RollingSum(
        low,
        high,
        axis=layout.axis,
        depth=min(layout.patch[layout.axis], layout.shape[layout.axis]),
        classes=layout.classes,
        device=weight.device,
    )
    for place, logits in _answers(network, image, layout, strip, unseen):
        total.finish(max(0, place[layout.axis]), take)
        total.add(place, logits, weight)
    total.finish(layout.shape[layout.axis], take)


def _answers(
    network: Network,
    image: Array,
    layout: Layout,
    strip: tuple[int, int],
    unseen: Unseen | None,
) -> Iterator[tuple[Shape3, Tensor]]:
    """Yield each window's place and logits `(classes, *patch)` float32, in order.

    Empty windows, each channel at its smallest value everywhere, are all alike: the network is
    asked once for all of them.
    """
    floor = torch.from_numpy(image.min(axis=(1, 2, 3), keepdims=True).astype(np.float32))
    outside = float(floor.min())
    floor = floor.repeat_interleave(1 + 2 * layout.neighbors, 0)
    blank: Tensor | None = None
    waiting: list[tuple[Shape3, Tensor | None]] = []  # place, and logits that are known
    crops: list[Tensor] = []

    def ask(windows: list[Tensor]) -> Tensor:
        batch = torch.stack(windows)
        answer = network(batch[..., 0] if layout.flat else batch)
        answer = answer.to(torch.float32, memory_format=torch.contiguous_format)
        return answer[..., None] if layout.flat else answer

    def answered() -> Iterator[tuple[Shape3, Tensor]]:
        logits = iter(ask(crops) if crops else ())
        for place, known in waiting:
            yield place, next(logits) if known is None else known
        waiting.clear()
        crops.clear()

    for place in layout.places(strip):
        if unseen is not None and unseen.holds(place):
            waiting.append((place, unseen.logits[:, None, None, None].expand(-1, *layout.patch)))
            continue
        crop = _crop(image, place, layout, outside)
        if _empty(crop, floor):
            if blank is None:
                (blank,) = ask([crop])
            waiting.append((place, blank))
            continue
        waiting.append((place, None))
        crops.append(crop)
        if len(crops) == layout.batch:
            yield from answered()
    yield from answered()


def _empty(crop: Tensor, floor: Tensor) -> bool:
    return bool((crop == floor).all())


def _crop(image: Array, place: Shape3, layout: Layout, outside: float) -> Tensor:
    """Return a window `(C, *patch)` float32, its neighbors among the channels."""
    patch = layout.patch
    if layout.neighbors:
        image, place = with_neighbors(image, place[2], layout.neighbors), (*place[:2], 0)
    ends = [(a, a + p, n) for a, p, n in zip(place, patch, image.shape[1:], strict=True)]
    inner = tuple(slice(max(a, 0), min(b, n)) for a, b, n in ends)
    values = np.array(image[(slice(None), *inner)], np.float32)
    if values.shape[1:] != patch:
        beyond = [(max(0, -a), max(0, b - n)) for a, b, n in ends]
        values = np.pad(values, [(0, 0), *beyond], constant_values=outside)
    return torch.from_numpy(values)


def _starts(length: int, patch: int, overlap: float) -> tuple[int, ...]:
    """Return window starts, evenly spread from the first voxel to the last."""
    if length <= patch:
        return (-((patch - length) // 2),)
    count = 1 + int(np.ceil((length - patch) / max(1, patch * (1 - overlap))))
    return tuple(sorted({round(p) for p in np.linspace(0, length - patch, count).tolist()}))


def _strips(length: int, room: int) -> tuple[tuple[int, int], ...]:
    """Cut `length` into strips of at most `room`; two share a voxel, for what lies between."""
    if room >= length:
        return ((0, length),)
    count = -(-(length - 1) // (room - 1))
    edges = [(length - 1) * n // count for n in range(count + 1)]
    return tuple((a, b + 1) for a, b in itertools.pairwise(edges))


def _gaussian(patch: Shape3) -> Array:
    out = np.ones(patch, np.float32)
    for axis, size in enumerate(patch):
        if size == 1:
            continue
        x = (np.arange(size) - (size - 1) / 2) / (size / 8)
        bell = np.exp(-0.5 * x**2).astype(np.float32)
        out *= bell.reshape([-1 if a == axis else 1 for a in range(len(patch))])
    return np.maximum(out, 1e-3)
