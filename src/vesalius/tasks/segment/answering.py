# SPDX-License-Identifier: Apache-2.0
"""The layers of a network that answer: one row of each tensor for each channel of the answer."""

from __future__ import annotations

import torch
from torch import nn

from vesalius.networks import build
from vesalius.tasks.segment.structures import answers
from vesalius.types import Json

_LEAST = 0.02  # patches are centered on structures, and show more of them than whole images do


def answering_names(decisions: Json) -> set[str]:
    """Return the names of the tensors whose rows are channels of the answer of a plan's network."""
    network, count = decisions["network"], answers(decisions)
    with torch.device("meta"):
        one, wider = (
            build(
                network["name"],
                spatial_dims=network["spatial_dims"],
                in_channels=network["in_channels"],
                out_channels=number,
                **network["options"],
            ).state_dict()
            for number in (count, count + 1)
        )
    return {name for name, tensor in one.items() if tensor.shape != wider[name].shape}


@torch.no_grad()
def begin_at_shares(model: nn.Module, decisions: Json) -> None:
    """Let each answer of structures that may overlap begin at the probability of its share.

    Without it, a structure of few voxels begins at one half everywhere, and most of a short
    training goes into taking that back. Lin et al.: Focal loss, ICCV 2017 (section 3.3).
    """
    shares = torch.tensor(decisions["shares"]).clamp(_LEAST, 0.5)
    biases = [name for name in answering_names(decisions) if name.endswith("bias")]
    # A network without deep supervision adds up what its layers answer.
    layers = 1 if decisions["network"]["options"].get("deep_supervision") else len(biases)
    for name in biases:
        model.get_parameter(name).copy_(torch.logit(shares) / layers)
