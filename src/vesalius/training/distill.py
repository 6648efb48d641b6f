# SPDX-License-Identifier: Apache-2.0
"""What a student loses against its teacher's answers, softened by a temperature.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531: both
sides' probabilities are those of logits divided by the temperature, and the loss is multiplied by
its square, so that its gradient weighs the same whatever the temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SMALLEST = 1e-6  # probability: a teacher is never surer than that


def taught_classes(logits: Tensor, taught: Tensor, *, temperature: float) -> Tensor:
    """Return the mean divergence (Kullback-Leibler) of the student from the teacher.

    Args:
        logits: of the student, `(N, classes, ...)`.
        taught: the teacher's probabilities, `(N, classes, ...)`.
        temperature: above 0; 1 leaves probabilities as they are.
    """
    wanted = torch.log_softmax(taught.float().clamp(min=_SMALLEST).log() / temperature, dim=1)
    found = torch.log_softmax(logits.float() / temperature, dim=1)
    each = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(1)
    return temperature**2 * each.mean()


def taught_labels(logits: Tensor, taught: Tensor, *, temperature: float) -> Tensor:
    """Return the same of labels that are each there or not, as a mean over cases and labels.

    Args:
        logits: of the student, `(N, labels, ...)`.
        taught: the teacher's probability of each, `(N, labels, ...)`.
        temperature: as of `taught_classes`.
    """
    sure = torch.logit(taught.float(), eps=_SMALLEST) / temperature
    wanted = torch.sigmoid(sure)
    scaled = logits.float() / temperature
    entropy = functional.binary_cross_entropy_with_logits(scaled, wanted)
    least = functional.binary_cross_entropy_with_logits(sure, wanted)  # of the teacher itself
    return temperature**2 * (entropy - least)


def taught_overlap(probabilities: Tensor, taught: Tensor) -> Tensor:
    """Return one less the mean soft Dice of student and teacher, over the whole batch.

    Wang et al.: Dice Semimetric Losses, MICCAI 2023, arXiv 2303.16296: of two soft maps the shared
    part is half of what the sums leave beside their distance, so that the loss is least, 0, where
    the student is as unsure as the teacher.

    Args:
        probabilities: of the student, structures alone, `(N, structures, ...)`.
        taught: of the teacher, the same.
    """
    axes = (0, *range(2, probabilities.ndim))
    total = (probabilities + taught).sum(axes)
    apart = (probabilities - taught).abs().sum(axes)
    return 1 - ((total - apart + 1) / (total + 1)).mean()
