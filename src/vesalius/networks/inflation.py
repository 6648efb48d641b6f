# SPDX-License-Identifier: Apache-2.0
"""Weights of a 2D network given to the same network in 3D.

Carreira, Zisserman: Quo Vadis, Action Recognition?, CVPR 2017 (I3D): a kernel is repeated along
the new axis k and divided by its length there, so that a volume that does not change along k
meets the 2D network's own answers. "center" puts the kernel into the middle slice instead and
zeros elsewhere: before any training the 3D network then filters slice by slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vesalius.errors import RunError, UsageError

Filling = Literal["repeat", "center"]


def inflate(
    state_2d: Mapping[str, Tensor], network_3d: nn.Module, *, how: Filling = "repeat"
) -> dict[str, Tensor]:
    """Return weights for `network_3d`, which `network_3d.load_state_dict` takes.

    Convolutions `(O, I, i, j)` become `(O, I, i, j, k)`; the columns of a linear layer that reads
    r cells along k where it read one are repeated r times and divided by r; all else is copied.

    Args:
        state_2d: the state of the 2D network, of the same name, stem, width and channels.
        network_3d: the network that is to receive it; it is not changed.
        how: "repeat" or "center", see above.

    Raises:
        UsageError: for another `how`.
        RunError: the two networks are not one architecture; names the tensors that do not fit.
    """
    if how not in ("repeat", "center"):
        raise UsageError(f"how must be 'repeat' or 'center', got '{how}'")
    wanted = network_3d.state_dict()
    strangers = sorted(state_2d.keys() ^ wanted.keys())
    if strangers:
        raise RunError(
            "2D and 3D weights are not of one architecture: only one of them has "
            f"{', '.join(strangers[:5])}{' and more' if len(strangers) > 5 else ''}; build the 3D "
            "network with the name, stem and width of the 2D one"
        )
    return {name: _inflated(name, state_2d[name], like, how) for name, like in wanted.items()}


def _inflated(name: str, flat: Tensor, like: Tensor, how: Filling) -> Tensor:
    if flat.shape == like.shape:
        return flat.detach().clone()
    if like.ndim == 5 and flat.shape == like.shape[:-1]:
        length = like.shape[-1]
        if how == "repeat":
            return flat.detach()[..., None].repeat(1, 1, 1, 1, length) / length
        kernel = flat.new_zeros(like.shape)
        kernel[..., length // 2] = flat.detach()
        return kernel
    if like.ndim == flat.ndim == 2 and like.shape[0] == flat.shape[0]:
        cells, rest = divmod(like.shape[1], flat.shape[1])
        if not rest:
            return torch.repeat_interleave(flat.detach(), cells, 1) / cells
    raise RunError(
        f"'{name}' of shape {tuple(flat.shape)} cannot be inflated to {tuple(like.shape)}: build "
        "the 3D network with the stem, width and channels of the 2D one"
    )
