# SPDX-License-Identifier: Apache-2.0
"""A network for sets: each image is encoded alone, told what it is, and pooled with the others.

Zaheer et al.: Deep Sets, NeurIPS 2017. What an image is (modality, plane, scanner) is a learned
vector added to its embedding; one that is not known adds nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.networks import IMAGE_NETWORKS, build
from vesalius.networks.acs import to_acs
from vesalius.networks.inflation import inflate
from vesalius.networks.memory_format import channels_innermost
from vesalius.networks.pooling import build_pooling
from vesalius.networks.pretrained import INPUT_SCALE, load_pretrained
from vesalius.tasks.classify.batch import FACTS, Batch
from vesalius.tasks.views import resize
from vesalius.types import Json

# Of batch normalization's running statistics. The 0.01 of EfficientNet is for the hundred thousands
# of steps of ImageNet: after a hundred, answers would still rest on the statistics of photographs.
_MOMENTUM = 0.1


class SetClassifier(nn.Module):
    """Encoder, facts, pooling over the images of each case, dropout and a linear layer."""

    def __init__(self, spec: Json, outputs: int) -> None:
        """Build the network of a plan's member.

        Args:
            spec: the member: `network`, `size`, `pooling`, `facts`, `dropout`.
            outputs: logits of the target.
        """
        super().__init__()
        network = spec["network"]
        if network["name"] not in IMAGE_NETWORKS:
            raise UsageError(
                f"a classifier's model must be one of {', '.join(IMAGE_NETWORKS)}, got "
                f"'{network['name']}'"
            )
        flat = network["volumes"] == "acs"
        self.encoder = build(
            network["name"],
            spatial_dims=2 if flat else network["spatial_dims"],
            in_channels=network["in_channels"],
            out_channels=outputs,
            **network["options"],
        )
        if flat:
            self.encoder = to_acs(self.encoder)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = _MOMENTUM
        self.size = int(spec["size"])
        self.scale = INPUT_SCALE if network["weights"] == "imagenet" else 1.0
        features = int(self.encoder.features)  # type: ignore[arg-type]  # of every image network
        self.facts = nn.ModuleList(
            nn.Embedding(len(spec["facts"][fact]) + 1, features, padding_idx=0) for fact in FACTS
        )
        for table in self.facts:
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]
        self.pooling = build_pooling(spec["pooling"], features)
        self.near = network["spatial_dims"] == 2 and channels_innermost(self.encoder)
        self.dropout = nn.Dropout(spec["dropout"])

    def encode(self, views: Tensor) -> Tensor:
        """Return one embedding per view, at the member's size: `(M, C, ...)` -> `(M, features)`."""
        sized = resize(views, self.size) * self.scale
        if self.near:
            sized = sized.to(memory_format=torch.channels_last)
        embedding: Tensor = self.encoder.encode(sized)  # type: ignore[operator]
        return embedding.float()

    def classify(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits `(N, outputs)` and each image's weight `(N, L)`.

        Args:
            embeddings: `(M, features)` of the batch's views.
            batch: of N cases.
        """
        items = batch.mixing @ embeddings  # (I, features)
        return self.decide(items[batch.places], batch.facts[batch.places], batch.present)

    def decide(self, items: Tensor, facts: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same from embeddings `(N, L, features)` and facts `(N, L, ...)` of images."""
        for column, table in enumerate(self.facts):
            items = items + table(facts[..., column])
        pooled, weights = self.pooling(items, present)
        logits: Tensor = self.encoder.head(self.dropout(pooled))  # type: ignore[operator]
        return logits.float(), weights

    def forward(self, batch: Batch) -> Tensor:
        """Return logits `(N, outputs)` of N cases."""
        return self.classify(self.encode(batch.views), batch)[0]


def new_model(spec: Json, outputs: int, seed: int) -> SetClassifier:
    """Return a model with weights drawn from `seed`, or those of ImageNet where the plan says so.

    Such weights enter a 3D network by inflation (Carreira & Zisserman, CVPR 2017) or as they are,
    in axial-coronal-sagittal convolutions (Yang et al., JBHI 2021).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SetClassifier(spec, outputs)
    network = spec["network"]
    if network["weights"] == "imagenet" and network["volumes"] == "inflate":
        flat = build(
            network["name"], spatial_dims=2, in_channels=network["in_channels"],
            out_channels=outputs, **network["options"],
        )  # fmt: skip
        load_pretrained(flat, network["name"], in_channels=network["in_channels"])
        model.encoder.load_state_dict(inflate(flat.state_dict(), model.encoder))
    elif network["weights"] == "imagenet":
        load_pretrained(model.encoder, network["name"], in_channels=network["in_channels"])
    return model
