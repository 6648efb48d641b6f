# SPDX-License-Identifier: Apache-2.0
"""What every network that labels voxels offers, whatever its architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vesalius.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class SegmentationNetwork(Protocol):
    """A network from images to logits on their own grid.

    The contract, for N images `(C, i, j)` or volumes `(C, i, j, k)`:

    - `multiple` says, for each axis, what the input's size must be a multiple of; other sizes raise
      `UsageError` with the size that would do.
    - `forward(x)` returns logits `(N, out_channels, ...)` on the grid of `x`. Of a network built
      with `deep_supervision=True`, in training mode, it returns a list instead, finest first, the
      coarser ones on the grids of their levels (`training.loss.deep_supervision_loss`).
    - One definition serves 2 and 3 spatial axes. Its function takes the keywords `spatial_dims`,
      `in_channels` and `out_channels` (labels, background included).
    """

    multiple: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels, ...)`."""
        ...


def check_size(x: Tensor, multiple: Sequence[int], *, fewest: int = 1) -> None:
    """Check that a network takes the size of `x`.

    Args:
        x: `(N, C, ...)`.
        multiple: of the network, one number an axis.
        fewest: voxels that must be left at the coarsest level.

    Raises:
        UsageError: it does not, with the next larger size that would do.
    """
    sides = list(x.shape[2:])
    if len(sides) != len(multiple):
        raise UsageError(f"the network takes {len(multiple)} spatial axes, got {len(sides)}")
    cells = [max(1, -(-side // step)) for side, step in zip(sides, multiple, strict=True)]
    if math.prod(cells) < fewest:
        cells[0] = fewest
    fitting = [count * step for count, step in zip(cells, multiple, strict=True)]
    if fitting != sides:
        raise UsageError(
            f"the network takes sizes that are multiples of {_times(multiple)} and leave at least "
            f"{fewest} at the coarsest level, got {_times(sides)}: pad the image to "
            f"{_times(fitting)}"
        )


def _times(sides: Sequence[int]) -> str:
    return " x ".join(str(side) for side in sides)
