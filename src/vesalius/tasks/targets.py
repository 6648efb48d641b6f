# SPDX-License-Identifier: Apache-2.0
"""Target: what is learned of a case, from the text of its truth to a loss and an answer.

A truth is text (`Case.truth`), in one form for each kind:

- `binary`, `multiclass`, `ordinal`: the name of the class;
- `multilabel`: the labels that the case bears, in order, joined by `; `; a label of which nothing
  is known is preceded by a question mark (`edema; ?effusion`), one that is not named is absent,
  and the empty text says that all are;
- `regression`: the number, as Python writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.types import Array, Json

if TYPE_CHECKING:
    from torch import Tensor

TargetKind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression"]
KINDS: tuple[str, ...] = get_args(TargetKind)
UNKNOWN = "?"  # before the name of a label
_BETWEEN = "; "
_NAMED = 20  # classes named in a message
# kind -> what it must have, in words and numbers
_COUNTS: dict[str, tuple[str, float, float]] = {
    "binary": ("two classes", 2, 2),
    "multiclass": ("two classes at least", 2, np.inf),
    "multilabel": ("one label at least", 1, np.inf),
    "ordinal": ("three grades at least", 3, np.inf),
    "regression": ("no classes", 0, 0),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One target of classification.

    Attributes:
        name: as the user named it; several columns joined by `+`.
        kind: what sort of answer it has.
        classes: in order: of two, the second is the positive one; of grades, from the least; of
            a multi-label target, its labels; none for a regression.
        unit_mean, unit_sd: of a regression, mean and standard deviation of the training truths:
            what the network learns is `(value - unit_mean) / unit_sd`.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    unit_mean: float = 0.0
    unit_sd: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"a target's kind must be one of {', '.join(KINDS)}, got {self.kind}")
        wanted, least, most = _COUNTS[self.kind]
        if not least <= len(set(self.classes)) == len(self.classes) <= most:
            raise UsageError(
                f"the {self.kind} target '{self.name}' must have {wanted}, all distinct, got "
                f"{len(self.classes)}: {listed(self.classes) or 'none'}"
            )
        if not (np.isfinite(self.unit_mean) and 0 < self.unit_sd < np.inf):
            raise UsageError(
                f"the target '{self.name}' needs a finite unit_mean and a unit_sd above 0, got "
                f"{self.unit_mean} and {self.unit_sd}"
            )

    @property
    def outputs(self) -> int:
        """Logits of the head: one per class or label, one less for grades, one for a number."""
        if self.kind == "regression":
            return 1
        return len(self.classes) - (self.kind == "ordinal")

    def encode(self, truths: Sequence[str]) -> Array:
        """Return what `loss` compares logits with.

        Returns:
            `(n,)` int64 indices of classes; of a multi-label target `(n, labels)` float32, 0, 1
            or NaN for unknown; of a regression `(n,)` float32 in standard deviations from the
            mean.

        Raises:
            CohortError: a truth that is none of this target's.
        """
        if self.kind == "regression":
            values = np.array([self.number(text) for text in truths], np.float64)
            return ((values - self.unit_mean) / self.unit_sd).astype(np.float32)
        place = {name: index for index, name in enumerate(self.classes)}
        self.check(truths)
        if self.kind != "multilabel":
            return np.array([place[text] for text in truths], np.int64)
        out = np.zeros((len(truths), len(self.classes)), np.float32)
        for row, text in enumerate(truths):
            for name, unknown in read_labels(text).items():
                out[row, place[name]] = np.nan if unknown else 1
        return out

    def loss(
        self,
        logits: Tensor,
        truth: Tensor,
        weights: Tensor | None = None,
        *,
        smoothing: float = 0.0,
    ) -> Tensor:
        """Return the loss of one batch, a scalar; see `training.loss`.

        Args:
            logits: `(N, outputs)`.
            truth: of `encode`; of classes and grades also `(N, classes)` probabilities.
            weights: of `balance.balancing`, as a tensor; of a regression `(N,)`, of each case.
            smoothing: share of the truth that is spread over all answers; a regression has none.
        """
        from vesalius.training import loss as losses

        if self.kind == "regression":
            if smoothing:
                raise UsageError(
                    f"smoothing must be 0 for a regression, which has no classes; got {smoothing}"
                )
            return losses.huber(logits, truth, weights)
        chosen = {
            "multilabel": losses.binary_cross_entropy,
            "ordinal": losses.ordinal_cross_entropy,
        }.get(self.kind, losses.cross_entropy)
        return chosen(logits, truth, weights, smoothing=smoothing)

    def probabilities(self, logits: Array) -> Array:
        """Return what `(n, outputs)` logits say, in 64 bit.

        Returns:
            `(n, classes)`, rows that sum to 1; of a multi-label target `(n, labels)`, each in 0
            to 1; of a regression `(n, 1)` numbers in the target's own unit.
        """
        logits = np.asarray(logits, np.float64)
        if self.kind == "regression":
            return logits * self.unit_sd + self.unit_mean
        if self.kind == "multilabel":
            return _sigmoid(logits)
        if self.kind == "ordinal":  # as `training.loss.ordinal_log_probabilities`
            ones = np.ones((len(logits), 1))
            above = np.hstack([ones, np.cumprod(_sigmoid(logits), axis=1)])
            return np.asarray(above * np.hstack([_sigmoid(-logits), ones]))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def predicted(self, probabilities: Array) -> list[str]:
        """Return the answer of each row of `probabilities`, in the form of a truth.

        It is the most probable class or grade; the labels whose probability is at least a half;
        the number.
        """
        if self.kind == "regression":
            return [repr(float(value)) for value in probabilities[:, 0]]
        if self.kind == "multilabel":
            return [
                write_labels(self.classes, dict(zip(self.classes, row, strict=True)))
                for row in (np.asarray(probabilities) >= 0.5).tolist()
            ]
        return [self.classes[index] for index in np.asarray(probabilities).argmax(axis=1)]

    def fitted(self, truths: Sequence[str]) -> Target:
        """Return the target with the scale of the training truths; only a regression has one.

        Raises:
            CohortError: all truths are the same number.
        """
        if self.kind != "regression":
            return self
        values = np.array([self.number(text) for text in truths], np.float64)
        if len(np.unique(values)) < 2:
            raise CohortError(
                f"the {len(values)} training cases hold {len(np.unique(values))} value(s) of "
                f"'{self.name}'; a regression needs two at least: check the labels and the split"
            )
        return replace(self, unit_mean=float(values.mean()), unit_sd=float(values.std()))

    def to_json(self) -> Json:
        """Return the target as JSON."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Return the target that `to_json` wrote.

        Raises:
            RunError: `value` is none.
        """
        try:
            return cls(**{**value, "classes": tuple(value["classes"])})
        except (KeyError, TypeError, UsageError) as error:
            raise RunError(f"a target cannot be read from {value!r}: {error}") from error

    def check(self, truths: Iterable[str]) -> None:
        """Raise `CohortError` where a truth is none of this target's, naming what is strange."""
        if self.kind == "regression":
            for text in truths:
                self.number(text)
            return
        held = {name for text in truths for name in self._names(text)}
        strange = sorted(held - set(self.classes))
        if strange:
            raise CohortError(
                f"the target '{self.name}' has no class {listed(strange)}; it knows "
                f"{listed(self.classes)}: filter such cases out, or train with them"
            )

    def _names(self, truth: str) -> Iterable[str]:
        return read_labels(truth) if self.kind == "multilabel" else (truth,)

    def number(self, truth: str) -> float:
        """Return the truth of a regression in its own unit."""
        try:
            value = float(truth)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise CohortError(f"a truth of '{self.name}' must be a finite number, got '{truth}'")
        return value


def read_labels(truth: str) -> dict[str, bool]:
    """Return label -> whether it is unknown, of the labels that a multi-label truth names."""
    names = [name.strip() for name in truth.split(_BETWEEN.strip())]
    return {name.removeprefix(UNKNOWN): name.startswith(UNKNOWN) for name in names if name}


def write_labels(classes: Sequence[str], states: Mapping[str, bool | None]) -> str:
    """Return the multi-label truth of present (True), absent (False) and unknown (None) labels."""
    marks = {True: "", None: UNKNOWN}
    return _BETWEEN.join(marks[states[n]] + n for n in classes if states[n] is not False)


def listed(names: Iterable[str]) -> str:
    """Return names for a message, the first twenty of many."""
    held = [f"'{name}'" for name in names]
    more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
    return ", ".join(held[:_NAMED]) + more


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
