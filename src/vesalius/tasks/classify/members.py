# SPDX-License-Identifier: Apache-2.0
"""The members of a classifier: heads on a frozen encoder, and networks; one file of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vesalius.tasks.classify.batch import FACTS, Batch, Image, make_batch
from vesalius.tasks.classify.crossfit import answers
from vesalius.tasks.classify.heads import Embedded, new_head
from vesalius.tasks.classify.model import SetClassifier
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.targets import Target
from vesalius.types import Array, Json

CASES_AT_ONCE = 16


class Member(Protocol):
    """Something that answers for cases."""

    @property
    def name(self) -> str:
        """Its name in the run, without `/`."""

    @property
    def module(self) -> nn.Module:
        """What its tensors belong to."""

    def answer(self, cases: Sequence[Sequence[Image]], found: Mapping[int, Embedded]) -> Array:
        """Return answers in the form of `Target.probabilities`.

        Args:
            cases: the images of each case.
            found: the cases as each frozen encoder embeds them.
        """

    def to_json(self) -> Json:
        """Return what rebuilds it, beside its tensors."""


@dataclass(frozen=True, slots=True)
class HeadMember:
    """A head on the embeddings of a frozen encoder."""

    name: str
    encoder: int
    spec: Json
    module: nn.Module
    target: Target

    def answer(
        self,
        cases: Sequence[Sequence[Image]],  # noqa: ARG002 - the protocol's
        found: Mapping[int, Embedded],
    ) -> Array:
        """See `Member.answer`."""
        return answers(self.module, found[self.encoder], self.target)

    def to_json(self) -> Json:
        """See `Member.to_json`."""
        return {"name": self.name, "kind": "head", "encoder": self.encoder, "spec": self.spec}


@dataclass(frozen=True, slots=True)
class NetworkMember:
    """A network that was trained end to end."""

    name: str
    spec: Json
    module: SetClassifier
    target: Target

    def answer(
        self,
        cases: Sequence[Sequence[Image]],
        found: Mapping[int, Embedded],  # noqa: ARG002 - the protocol's
    ) -> Array:
        """See `Member.answer`; where a mirror is harmless, the mean of both sides' logits."""
        return self.answer_and_embed(cases)[0]

    def answer_and_embed(self, cases: Sequence[Sequence[Image]]) -> tuple[Array, Array]:
        """Return `answer` and `embeddings`, each view encoded once."""
        parts, pooled = [], []
        with torch.inference_mode():
            for batch, views, means in self._encoded(cases):
                logits, _ = self.module.classify(views, batch)
                if self.spec["mirror"]:
                    logits = (logits + self.module(mirrored(batch))) / 2
                parts.append(logits.double().cpu().numpy())
                pooled += means
        return self.target.probabilities(np.concatenate(parts)), torch.stack(pooled).numpy()

    def embeddings(self, cases: Sequence[Sequence[Image]]) -> Array:
        """Return the mean embedding of each case's images `(n, F)`."""
        with torch.inference_mode():
            return torch.stack([m for _, _, means in self._encoded(cases) for m in means]).numpy()

    def _encoded(
        self, cases: Sequence[Sequence[Image]]
    ) -> Iterator[tuple[Batch, Tensor, list[Tensor]]]:
        """Yield some cases as a batch, its views' embeddings, and each case's mean embedding."""
        device = next(self.module.parameters()).device
        for start in range(0, len(cases), CASES_AT_ONCE):
            some = cases[start : start + CASES_AT_ONCE]
            batch = make_batch(some).to(device)
            views = self.module.encode(batch.views)
            items = (batch.mixing @ views).cpu()
            yield batch, views, [one.mean(0) for one in torch.split(items, [len(c) for c in some])]

    def to_json(self) -> Json:
        """See `Member.to_json`."""
        return {"name": self.name, "kind": "network", "spec": self.spec}


def mirrored(batch: Batch) -> Batch:
    """Return the batch with every view mirrored along its first axis."""
    return batch.with_views(batch.views.flip(2))


def save_members(
    path: Path, members: Sequence[Member], encoders: Mapping[int, FrozenEncoder], run: str
) -> None:
    """Write the tensors of all members and encoders; nothing in it needs unpickling."""
    from vesalius.training.checkpoint import save_tensors

    parts = {m.name: m.module for m in members}
    parts |= {f"encoder{n}": e.encoder for n, e in encoders.items() if not e.file}
    tensors = {
        f"{name}/{key}": value.contiguous()
        for name, module in parts.items()
        for key, value in module.state_dict().items()
    }
    save_tensors(path, tensors, {"plan": run})


def load_members(
    tensors: dict[str, Tensor],
    folder: Path,
    decisions: Json,
    held: Sequence[Json],
    target: Target,
) -> tuple[list[Member], dict[int, FrozenEncoder]]:
    """Return the members and encoders of a run, in evaluation mode.

    Args:
        tensors: of `model.safetensors`.
        folder: of the run.
        decisions: of the plan.
        held: what `Member.to_json` returned, in order.
        target: of the plan.
    """

    def own(name: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(f"{name}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{name}/")
        }

    encoders = {}
    for number in sorted({record["encoder"] for record in held if record["kind"] == "head"}):
        encoder = FrozenEncoder(decisions["frozen"][number], folder, pretrained=False)
        if not encoder.file:
            encoder.encoder.load_state_dict(own(f"encoder{number}"))
        encoders[number] = encoder
    known = [len(decisions["facts"][fact]) for fact in FACTS]
    members: list[Member] = []
    for record in held:
        state = own(record["name"])
        if record["kind"] == "network":
            model = SetClassifier(record["spec"], target.outputs)
            model.load_state_dict(state)
            members.append(NetworkMember(record["name"], record["spec"], model.eval(), target))
            continue
        features = encoders[record["encoder"]].features
        head = new_head(record["spec"], features, known, target)
        for name, buffer in head.named_buffers():  # of a size that the training set decides
            if buffer.shape != state[name].shape:
                setattr(head, name, torch.empty_like(state[name]))
        head.load_state_dict(state)
        members.append(
            HeadMember(record["name"], record["encoder"], record["spec"], head.eval(), target)
        )
    return members, encoders
