# SPDX-License-Identifier: Apache-2.0
"""A whole mixture as one network: prepared views in, calibrated answers out, one image a case.

It holds what a run computes after an image was read, normalized and brought to the plan's size
(`views.make_views`); facts of the image are taken as unknown. For export, and for speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vesalius.errors import UsageError
from vesalius.networks.pretrained import INPUT_SCALE
from vesalius.tasks.classify.batch import FACTS
from vesalius.tasks.classify.heads import KnnHead
from vesalius.tasks.classify.members import HeadMember, NetworkMember
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.views import resize

_SMALLEST = 1e-6


class MixtureGraph(nn.Module):
    """Views `(N, C, ...)` float32 -> calibrated probabilities `(N, classes)`, labels or values."""

    def __init__(self, classifier: Classifier) -> None:
        """Take the classifier's members; they are not copied.

        Raises:
            UsageError: a member that is no network of this library (an encoder from ONNX).
        """
        super().__init__()
        mixture = classifier.mixture
        self.target = classifier.target
        self.encoders = nn.ModuleDict()
        self.sizes: dict[str, int] = {}
        self.mirrors: dict[str, bool] = {}
        for number, encoder in mixture.encoders.items():
            if encoder.file or encoder.volumes:
                raise UsageError(
                    "this run's frozen encoder cannot be part of one graph: train with a network's "
                    "name, or on images"
                )
            self.encoders[str(number)] = encoder.encoder
            self.sizes[str(number)], self.mirrors[str(number)] = encoder.size, encoder.mirror
        self.parts = nn.ModuleList(member.module for member in mixture.members)
        self.members = list(mixture.members)
        self.shares = [float(weight) for weight in mixture.weights]
        calibrator = classifier.trust.calibrator
        self.calibrated = calibrator is not None
        if calibrator is not None:
            self.register_buffer("slope", torch.tensor(calibrator.weights, dtype=torch.float32))
            self.register_buffer("bias", torch.tensor(calibrator.bias, dtype=torch.float32))

    def forward(self, views: Tensor) -> Tensor:
        """Return the answers `(N, ...)`, in the form of `Target.probabilities`."""
        count = views.shape[0]
        facts = torch.zeros(count, 1, len(FACTS), dtype=torch.long, device=views.device)
        present = torch.ones(count, 1, dtype=torch.bool, device=views.device)
        found = {name: self._embed(name, views) for name in self.encoders}
        total = torch.zeros(1, device=views.device)
        for member, part, share in zip(self.members, self.parts, self.shares, strict=True):
            if isinstance(member, HeadMember):
                given = part.on(found[str(member.encoder)][:, None], facts, present)  # type: ignore[operator]
                answer = given if isinstance(part, KnnHead) else self._answer(given)
            elif isinstance(member, NetworkMember):
                logits = self._decide(member, views, facts, present)
                if member.spec["mirror"]:
                    logits = (logits + self._decide(member, views.flip(2), facts, present)) / 2
                answer = self._answer(logits)
            total = total + share * answer
        return self._calibrate(total) if self.calibrated else total

    def _embed(self, name: str, views: Tensor) -> Tensor:
        sized = resize(views, self.sizes[name]) * INPUT_SCALE
        encoder = self.encoders[name]
        found: Tensor = encoder.levels(sized)  # type: ignore[operator]
        if self.mirrors[name]:
            found = (found + encoder.levels(sized.flip(2))) / 2  # type: ignore[operator]
        return found

    @staticmethod
    def _decide(member: NetworkMember, views: Tensor, facts: Tensor, present: Tensor) -> Tensor:
        return member.module.decide(member.module.encode(views)[:, None], facts, present)[0]

    def _answer(self, logits: Tensor) -> Tensor:
        """Return what `Target.probabilities` does, as tensors."""
        if self.target.kind == "regression":
            return logits * self.target.unit_sd + self.target.unit_mean
        if self.target.kind == "multilabel":
            return torch.sigmoid(logits)
        if self.target.kind == "ordinal":
            passed = torch.sigmoid(logits)
            one = torch.ones_like(passed[:, :1])
            above = torch.cat([one, torch.cumprod(passed, dim=1)], dim=1)
            return above * torch.cat([1 - passed, one], dim=1)
        return torch.softmax(logits, dim=1)

    def _calibrate(self, table: Tensor) -> Tensor:
        p = table.clamp(_SMALLEST, 1 - _SMALLEST)
        labels = self.target.kind == "multilabel"
        scores = torch.log(p) - torch.log1p(-p) if labels else torch.log(p)
        mapped = scores @ self.slope.T + self.bias  # type: ignore[operator]
        return torch.sigmoid(mapped) if labels else torch.softmax(mapped, dim=1)
