# SPDX-License-Identifier: Apache-2.0
"""Several answers become one: the mean of their probabilities, given on as logits.

So whatever takes the logits of one network takes those of several: `argmax`, `doubt`, an export.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vesalius.tasks.segment.slide import Network


class Ensemble(nn.Module):
    """Networks of one shape, each trained without one fold; for inference.

    Args:
        members: the networks, in the order of their folds.
        regions: whether each channel is a structure of its own (sigmoid) instead of one of
            several classes (softmax).
    """

    def __init__(self, members: Sequence[nn.Module], *, regions: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.regions = regions

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the members' mean: `(N, C, ...)` -> `(N, classes, ...)`."""
        return log_mean((member(x) for member in self.members), regions=self.regions)


def mirrored(network: Network, axes: Sequence[int], *, regions: bool) -> Network:
    """Return a network that answers by the mean over all mirror images along some spatial axes.

    Args:
        network: `(N, C, ...)` to logits `(N, classes, ...)`.
        axes: from 0, each alone and together: `n` axes take `2 ** n` answers.
        regions: as of `Ensemble`.
    """
    turns = [
        [2 + axis for axis in chosen]
        for count in range(len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
    ]

    def answer(x: Tensor) -> Tensor:
        return log_mean((network(x.flip(turn)).flip(turn) for turn in turns), regions=regions)

    return answer


def log_mean(answers: Iterable[Tensor], *, regions: bool) -> Tensor:
    """Return logits whose probabilities are the mean of those of some logits, float32.

    Of classes they are the logarithms of the mean; of regions, each a structure of its own, those
    of the mean's odds. One answer is held at a time, beside the sums.

    Args:
        answers: logits of one shape, `(N, classes, ...)`.
        regions: as of `Ensemble`.
    """
    if regions:
        yes, no = None, None
        for logits in answers:
            wide = logits.float()
            yes = _added(yes, functional.logsigmoid(wide))
            no = _added(no, functional.logsigmoid(-wide))
        assert yes is not None  # noqa: S101 - there is an answer
        assert no is not None  # noqa: S101
        return yes - no
    total, count = None, 0
    for count, logits in enumerate(answers, 1):  # noqa: B007 - used after the loop
        total = _added(total, logits.float().log_softmax(1))
    assert total is not None  # noqa: S101 - there is an answer
    return total - math.log(count)


def _added(total: Tensor | None, logs: Tensor) -> Tensor:
    """Return the logarithm of the sum of what two logarithms stand for."""
    return logs if total is None else torch.logaddexp(total, logs)
