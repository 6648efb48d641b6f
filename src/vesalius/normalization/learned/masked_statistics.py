# SPDX-License-Identifier: Apache-2.0
"""Differentiable statistics of tensors over their last axis, inside a mask: median, mean, MAD.

Leys et al.: Detecting outliers, J. Exp. Soc. Psychol. 2013 (1.4826 MAD estimates the standard
deviation). Declared law: values outside the mask change neither a result nor a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vesalius.normalization.intensity.mad import TO_SIGMA

_FLAT = 1e-9  # a MAD below this share of the largest deviation is none


def masked_median(values: Tensor, inside: Tensor) -> Tensor:
    """Return the median over the last axis where `inside`, `(..., 1)`; 0 where nothing is inside.

    Of an even number it is the mean of the middle two. Sorting and picking keep it differentiable
    almost everywhere, and exportable.
    """
    ordered = torch.where(inside, values, torch.inf).sort(dim=-1).values
    count = inside.sum(-1, keepdim=True)
    lower = ordered.gather(-1, ((count - 1) // 2).clamp(min=0))
    upper = ordered.gather(-1, (count // 2).clamp(max=values.shape[-1] - 1))
    return torch.where(count > 0, (lower + upper) / 2, 0.0)


def masked_mean(values: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over the last axis where `inside`, `(..., 1)`; 0 where nothing is inside."""
    count = inside.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(inside, values, 0.0).sum(-1, keepdim=True) / count


def robust_z(values: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x - median) / (1.4826 MAD), and whether the values vary at all, `(..., 1)`.

    Where more than half of the values are one, their standard deviation replaces the MAD, which
    is 0 then; where all are, the scale is 1. The largest deviation is the unit of the computation
    and cancels in the result: values of any magnitude neither overflow nor vanish when squared.
    """
    deviation = values - masked_median(values, inside)
    largest = torch.where(inside, deviation, 0.0).abs().amax(-1, keepdim=True).detach()
    varied = largest != 0  # NaN varies too, and stays NaN
    share = deviation / torch.where(varied, largest, 1.0)
    mad = TO_SIGMA * masked_median(share.abs(), inside)
    variance = masked_mean((share - masked_mean(share, inside)).square(), inside)
    robust = mad > _FLAT
    sd = torch.where(robust | ~varied, 1.0, variance).sqrt()
    return share / torch.where(robust, mad, sd), varied
