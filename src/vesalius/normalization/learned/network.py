# SPDX-License-Identifier: Apache-2.0
"""MADNorm: the default normalization as a network layer that learns with the task behind it.

```
z = f((x - median) / (1.4826 * MAD))                 f: identity, or the image normalizer
y = (s * tanh(z / s) - mean) / sd * gain + shift     s, gain > 0 and shift learned per modality
```

Median, MAD, mean and sd (standard deviation) are those of each image and channel inside its mask,
so that an image's result does not depend on its batch. At initialization s = 3.5, gain = 1,
shift = 0 and f is the identity: the method `mad-tanh` (which takes median and MAD from a
sample of masks above `method.SAMPLE` voxels; here all count).

The learned smooth clip follows the outlier step of EDAIN (September et al.: Extended Deep Adaptive
Input Normalization, AISTATS 2024); f is the normalizer of Karani et al.: Test-time adaptable
neural networks for robust medical image segmentation, Medical Image Analysis 68:101907, 2021.

Declared laws: affine-invariant; order-preserving without f; unit-sd where gain = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.intensity.mad import CLIP
from vesalius.normalization.learned.image_normalizer import ImageNormalizer
from vesalius.normalization.learned.masked_statistics import masked_mean, robust_z
from vesalius.normalization.method import inside as checked
from vesalius.types import Json

GENERIC = 0  # the row of images whose modality is not told or not in the table
ACCEPTED = "accepted"


class MADNorm(nn.Module):
    """Robust normalization with a learned smooth clip and affine map, one set per modality.

    Args:
        spatial_dims: 2 or 3.
        modalities: names with a learned row each, for example DICOM codes. All other images share
            the generic row 0.
        limit: of the smooth clip at the start, in robust standard deviations.
        cnn: whether the image normalizer works between the robust scale and the smooth clip.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        modalities: Sequence[str] = (),
        limit: float = CLIP,
        cnn: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise UsageError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        if len(set(modalities)) < len(modalities) or isinstance(modalities, str):
            raise UsageError(f"modalities must be a list of different names, got {modalities!r}")
        if not 0 < limit < math.inf:
            raise UsageError(f"limit must be a number above 0, got {limit}")
        rows = 1 + len(modalities)
        self.spatial_dims = spatial_dims
        self.modalities = tuple(modalities)
        self.limit = limit
        self.raw_limit = nn.Parameter(torch.full((rows,), _inverse_softplus(limit)))
        self.raw_gain = nn.Parameter(torch.full((rows,), _inverse_softplus(1.0)))
        self.shift = nn.Parameter(torch.zeros(rows))
        self.cnn = ImageNormalizer(spatial_dims=spatial_dims) if cnn else None

    def forward(
        self, x: Tensor, modality: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return the images on the common scale, in the precision of the parameters.

        Args:
            x: `(N, C, i, j[, k])`, any real dtype and unit. A constant channel, or one whose mask
                is empty, comes out finite; one with NaN comes out NaN. `verdict` tells them.
            modality: rows of the table, integers `(N,)` or `(N, C)`, see `index`; a number outside
                the table counts as generic. Default: all generic.
            mask: where the statistics are taken, Boolean `(N, 1 or C, i, j[, k])`; default
                everywhere.

        Raises:
            UsageError: a shape or the mask's type does not fit.
        """
        _validate(x, modality, mask, self.spatial_dims)
        flat = (x if x.dtype == torch.float64 else x.float()).flatten(2)  # (N, C, V)
        inside = torch.ones_like(flat, dtype=torch.bool)
        if mask is not None:
            inside = mask.expand_as(x).flatten(2)
        robust, varied = robust_z(flat, inside)
        z = robust.to(self.shift.dtype)
        if self.cnn is not None:
            z = self.cnn(z.reshape(x.shape)).flatten(2)
        rows = self._rows(x, modality)
        limit = functional.softplus(self.raw_limit)[rows]
        clipped = limit * torch.tanh(z / limit)
        mean = masked_mean(clipped, inside)
        variance = masked_mean((clipped - mean).square(), inside)
        sd = torch.where(varied & (variance > 0), variance, 1.0).sqrt()
        y = (clipped - mean) / sd * functional.softplus(self.raw_gain)[rows] + self.shift[rows]
        return y.reshape(x.shape)

    def index(self, names: Iterable[str]) -> Tensor:
        """Return the table's row of each name, `(len(names),)`; unknown names are generic."""
        rows = {name: row for row, name in enumerate(self.modalities, start=GENERIC + 1)}
        device = self.shift.device
        return torch.tensor([rows.get(name, GENERIC) for name in names], device=device)

    def to_json(self) -> Json:
        """Return the arguments that build the same layer; its weights are the state dict."""
        return {
            "spatial_dims": self.spatial_dims,
            "modalities": [*self.modalities],
            "limit": self.limit,
            "cnn": self.cnn is not None,
        }

    def _rows(self, x: Tensor, modality: Tensor | None) -> Tensor:
        """Return a valid row for each image and channel, `(N, C, 1)`."""
        if modality is None:
            return torch.full_like(x[:, :, :1].flatten(2)[..., :1], GENERIC, dtype=torch.long)
        known = (modality >= 0) & (modality <= len(self.modalities))
        rows = torch.where(known, modality, GENERIC).long()
        rows = rows[:, None] if rows.ndim == 1 else rows
        return rows.expand(-1, x.shape[1])[..., None]


class Normalized(nn.Module):
    """A network with its normalization in front; the two train, save and adapt as one.

    Args:
        norm: the normalization.
        model: any network of one image tensor.
    """

    def __init__(self, norm: MADNorm, model: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.model = model

    def forward(
        self, x: Tensor, modality: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return what the network makes of the normalized images; arguments as in `MADNorm`."""
        return cast(Tensor, self.model(self.norm(x, modality, mask)))


def verdict(x: Tensor, mask: Tensor | None = None) -> list[tuple[str, ...]]:
    """Return for each image one word a channel: `accepted`, or why it has no scale.

    The words are those of `NormalizationRefused`: `constant`, `non-finite`, `empty-mask`,
    `too-few-voxels`.

    Args:
        x, mask: as in `MADNorm.forward`.
    """
    _validate(x, None, mask, x.ndim - 2)
    values = (x if x.dtype == torch.float64 else x.float()).detach().cpu().numpy()
    where = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand_as(x)
    masks = where.cpu().numpy()

    def word(image: int, channel: int) -> str:
        try:
            checked(values[image, channel], masks[image, channel])
        except NormalizationRefused as refusal:
            return refusal.reason
        return ACCEPTED

    return [tuple(word(n, c) for c in range(x.shape[1])) for n in range(len(x))]


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


def _validate(x: Tensor, modality: Tensor | None, mask: Tensor | None, dims: int) -> None:
    axes = "(N, C, i, j)" if dims == 2 else "(N, C, i, j, k)"
    if x.ndim != 2 + dims or 0 in x.shape[1:]:
        raise UsageError(f"x must be {axes} with at least one voxel, got shape {tuple(x.shape)}")
    if modality is not None and (
        modality.dtype.is_floating_point
        or tuple(modality.shape) not in [(x.shape[0],), tuple(x.shape[:2])]
    ):
        raise UsageError(
            f"modality must be integers (N,) or (N, C), here ({x.shape[0]},) or "
            f"{tuple(x.shape[:2])}, got {modality.dtype} {tuple(modality.shape)}"
        )
    if mask is not None and (
        mask.dtype != torch.bool
        or tuple(mask.shape) not in [tuple(x.shape), (x.shape[0], 1, *x.shape[2:])]
    ):
        raise UsageError(
            f"mask must be Boolean {axes} like x, {tuple(x.shape)}, with 1 channel or as many, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
