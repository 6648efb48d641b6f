# SPDX-License-Identifier: Apache-2.0
"""What the stain methods share: axes, optical density, the tissue mask and the blank-tile guard.

Images of stained slides are red, green, blue in 0..255 with axes `(3, i, j)`, a batch
`(n, 3, i, j)`; masks are Boolean `(i, j)` or `(n, i, j)`. Optical density (Beer-Lambert):
`OD = -ln((I + 1) / light)`; brighter than the lamp gives OD < 0, which is defined and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.types import Array, Json

LIGHT = 240.0  # gray level of the lamp through clear glass, as Macenko et al. set it
BETA = 0.15  # optical density below which a pixel is clear glass
LEAST_SHARE = 0.02  # of pixels that must be tissue
LEAST_PIXELS = 64


@dataclass(frozen=True, slots=True)
class StainRecord:
    """What happened to one image.

    Attributes:
        reason: empty where it was normalized, else why it was left as it came (`constant`,
            `non-finite`, `blank-tile`, `empty-mask`, `one-stain`).
        message: the reason in a sentence, or empty.
        tissue: share of pixels that the estimate rests on.
        found: the image's own numbers (stain vectors, maxima, means, ...), by name.
    """

    reason: str = ""
    message: str = ""
    tissue: float = 0.0
    found: Mapping[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return all of it, for certificates."""
        return asdict(self)


# solve(image (3, i, j), mask (i, j)) -> image float32 in 0..255, the image's own numbers
Solve = Callable[[Array, Array], tuple[Array, dict[str, list[float]]]]


def optical_density(image: Array, light: float = LIGHT) -> Array:
    """Return `-ln((I + 1) / light)`, float32, of gray levels in 0..255 of any shape."""
    if image.dtype == np.uint8:  # 256 logarithms for any number of pixels
        table = -np.log((np.arange(256.0) + 1.0) / light)
        out: Array = table.astype(np.float32)[image]
        return out
    return (-np.log((image.astype(np.float64) + 1.0) / light)).astype(np.float32)


def tissue_mask(images: Array, *, light: float = LIGHT, beta: float = BETA) -> Array:
    """Return where the channels' mean has OD >= `beta`: `(i, j)` or `(n, i, j)`, Boolean.

    The mean, because eosin alone absorbs hardly any red.
    """
    darkest_glass = light * np.exp(-beta) - 1.0  # OD >= beta there and below
    out: Array = images.mean(axis=-3) <= darkest_glass
    return out


def check_images(images: Array, mask: Array | None) -> tuple[Array, Array | None]:
    """Return `(n, 3, i, j)` and `(n, i, j)` or None: the one door of every stain method.

    Raises:
        UsageError: axes, dtype, range or mask are not as the module says.
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or images.shape[-3] != 3:
        raise UsageError(
            f"images must have axes (3, i, j) or (n, 3, i, j), got shape {images.shape}; "
            "for (i, j, 3) call np.moveaxis(images, -1, -3)"
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise UsageError(f"images must be uint8 or floating point, got {images.dtype}")
    if images.dtype.kind == "f" and images.size:
        finite = images[np.isfinite(images)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        if low < 0 or high > 255:
            raise UsageError(f"images must hold gray levels in 0..255, got {low:g} to {high:g}")
        if low < high <= 1:
            raise UsageError(
                f"images must hold gray levels in 0..255, got {low:g} to {high:g}; multiply by 255"
            )
    if mask is not None:
        wanted = (*images.shape[:-3], *images.shape[-2:])
        if mask.dtype != np.bool_ or mask.shape != wanted:
            raise UsageError(f"mask must be Boolean {wanted}, got {mask.dtype} {mask.shape}")
    if images.ndim == 3:
        return images[None], None if mask is None else mask[None]
    return images, mask


def guard(image: Array, tissue: Array, *, given: bool = False) -> None:
    """Refuse what no stain can be estimated from.

    Args:
        image: `(3, i, j)`.
        tissue: `(i, j)`, Boolean.
        given: whether the mask came from the caller; then only the number of pixels counts.

    Raises:
        NormalizationRefused: `empty`, `non-finite`, `constant`, `empty-mask` or `blank-tile`.
    """
    if image.size == 0:
        raise NormalizationRefused("empty", f"the image is empty: shape {image.shape}")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = int(image.size - np.isfinite(image).sum())
        raise NormalizationRefused("non-finite", f"{bad:,} values are NaN or infinite")
    if (image == image[:, :1, :1]).all():
        raise NormalizationRefused("constant", "every pixel has the same color")
    held = int(tissue.sum())
    if given and held == 0:
        raise NormalizationRefused("empty-mask", "the tissue mask holds no pixel")
    if held < LEAST_PIXELS or (not given and held < LEAST_SHARE * tissue.size):
        raise NormalizationRefused(
            "blank-tile",
            f"{held:,} of {tissue.size:,} pixels are tissue, at least {LEAST_PIXELS}"
            f"{'' if given else f' and {LEAST_SHARE:.0%}'} needed",
        )


def run(images: Array, mask: Array | None, solve: Solve) -> tuple[Array, list[StainRecord]]:
    """Return normalized images in the dtype that came (uint8 rounded, else float32) and records.

    In a batch an image that is refused comes back unchanged, with the reason in its record.

    Raises:
        UsageError: see `check_images`.
        NormalizationRefused: a single image (3 axes) is refused.
    """
    batch, masks = check_images(images, mask)
    whole = batch.dtype == np.uint8
    out = batch.astype(np.uint8 if whole else np.float32)  # a copy: the caller's stays as it is
    records = []
    for n, image in enumerate(batch):
        tissue = tissue_mask(image) if masks is None else masks[n]
        try:
            guard(image, tissue, given=masks is not None)
            result, found = solve(image, tissue)
        except NormalizationRefused as refused:
            if images.ndim == 3:
                raise
            records.append(StainRecord(refused.reason, str(refused), _share(tissue)))
            continue
        np.clip(result, 0.0, 255.0, out=result)
        out[n] = np.rint(result, out=result) if whole else result
        records.append(StainRecord(tissue=_share(tissue), found=found))
    return out.reshape(images.shape), records


def references(
    images: Array | Sequence[Array], mask: Array | Sequence[Array] | None
) -> list[tuple[Array, Array, bool]]:
    """Return `(image, tissue, given)` for every reference image, each past the guard.

    `images` is one image, a batch, or a sequence of images of different sizes.

    Raises:
        UsageError: there is none, or see `check_images`.
        NormalizationRefused: one of them serves no estimate; the message says which.
    """
    if isinstance(images, np.ndarray):
        batch, masks = check_images(images, None if mask is None else np.asarray(mask))
        pairs = [(image, None if masks is None else masks[n]) for n, image in enumerate(batch)]
    else:
        given = [None] * len(images) if mask is None else list(mask)
        pairs = []
        for one, one_mask in zip(images, given, strict=True):
            part, part_mask = check_images(one, one_mask)
            pairs.append((part[0], None if part_mask is None else part_mask[0]))
    if not pairs:
        raise UsageError("a target needs at least one reference image, got none")
    held = []
    for n, (image, own) in enumerate(pairs):
        tissue = tissue_mask(image) if own is None else own
        try:
            guard(image, tissue, given=own is not None)
        except NormalizationRefused as refused:
            raise NormalizationRefused(refused.reason, f"reference image {n}: {refused}") from None
        held.append((image, tissue, own is not None))
    return held


def _share(tissue: Array) -> float:
    return float(tissue.mean()) if tissue.size else 0.0
