# SPDX-License-Identifier: Apache-2.0
"""Beginning with the weights of another run's network: other scans, other structures, more steps.

The network, its grid and its normalization are the old run's, since its weights were learned on
them. The layers that answer are copied structure by structure, by name.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from torch import Tensor, nn

from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.tasks.run import Run
from vesalius.tasks.segment.answering import answering_names
from vesalius.tasks.segment.footprint import training_bytes
from vesalius.tasks.segment.neighbors import image_channels, neighbors
from vesalius.tasks.segment.plan import LEAST_BATCH
from vesalius.types import Json

LESS = 1 / 3  # of the peak learning rate: learned weights are to be moved, not lost
_TAKEN = ("network", "spacing", "patch", "batch", "normalization")


def take_over(
    decisions: Json, origin: Run, *, model: str, normalize: str
) -> tuple[Json, list[str]]:
    """Return the decisions with what must be the old run's, and what the audit says of it.

    Args:
        decisions: of `plan.decide`.
        origin: the run to begin with.
        model, normalize: that were asked for, or `auto`.

    Raises:
        UsageError: the old network does not take these images, or another one was asked for.
        BudgetError: its training does not fit the memory that was asked for.
    """
    old, new = origin.decisions["network"], decisions["network"]
    method = origin.decisions["normalization"]
    for option, given, held in (("model", model, old["name"]), ("normalize", normalize, method)):
        if given not in ("auto", held):
            raise UsageError(
                f"--from keeps the {option} of that run, '{held}', and '{given}' was asked for; "
                f"leave --{option} out"
            )
    differences = (
        ("axes", old["spatial_dims"], new["spatial_dims"]),
        ("channels", image_channels(origin.decisions), image_channels(decisions)),
    )
    for noun, has, got in differences:
        if has != got:
            raise UsageError(
                f"the network of the run that --from names takes images of {has} {noun}, "
                f"and these have {got}; train without --from"
            )
    optimizer = decisions["optimizer"]
    taken = {
        **decisions,
        **{name: origin.decisions[name] for name in _TAKEN},
        "neighbors": neighbors(origin.decisions),
        "optimizer": {**optimizer, "lr": optimizer["lr"] * LESS},
    }
    memory = taken.get("memory")
    while memory is not None and (needed := training_bytes(taken)) > memory:
        if taken["batch"] <= LEAST_BATCH:
            raise BudgetError(
                f"training the network of the run that --from names takes {needed / 1e9:.2f} GB, "
                f"allowed are {memory / 1e9:.2f} GB; give more --memory"
            )
        taken["batch"] -= 1
    known = origin.decisions["labels"]
    fresh = [name for name in decisions["labels"] if name not in known]
    line = f"begins with the weights of the run {origin.id}, on its grid, in its normalization"
    if fresh:
        line += f"; not known to it, and drawn anew: {', '.join(fresh)}"
    return taken, [line]


def same_answers(decisions: Json, origin: Run) -> bool:
    """Return whether both runs answer the same structures, so that their scores can be compared."""
    return _outputs(decisions) == _outputs(origin.decisions)


def begin_with(model: nn.Module, decisions: Json, origin: Run, number: int) -> None:
    """Copy the old run's weights into a new network, in place.

    Args:
        model: with weights drawn.
        decisions: of the new plan.
        origin: the run to begin with.
        number: of the network among those of the new run; of an old run with several, their
            turn is taken.

    Raises:
        RunError: the networks differ.
    """
    held = _one_of(origin, number)
    rows = [
        (new, old)
        for new, name in enumerate(_outputs(decisions))
        for old, known in enumerate(_outputs(origin.decisions))
        if name == known
    ]
    own, answering = model.state_dict(), answering_names(decisions)
    for name, tensor in own.items():
        if name not in held or (name not in answering and held[name].shape != tensor.shape):
            raise RunError(
                f"the network of the run '{origin.path}' has no '{name}' of shape "
                f"{tuple(tensor.shape)}; leave the plan's network as it was planned"
            )
        if name not in answering:
            tensor.copy_(held[name])
        else:
            for new, old in rows:
                tensor[new].copy_(held[name][old])


def adopt_normalizer(run: Run, origin: Run) -> str:
    """Take the old run's normalizer where it covers the new images; return the audit's line.

    Where it does not, a normalizer is fitted on the new run's images, as for any run.
    """
    path = run.path / "normalizer.json"
    new, old = run.plan["fingerprint"]["modalities"], origin.plan["fingerprint"]["modalities"]
    if not set(new) <= set(old):
        return "the normalizer is fitted anew: the run it begins with knew other modalities"
    if not path.exists():
        shutil.copyfile(origin.path / "normalizer.json", path)
    return "the normalizer is that of the run it begins with"


def gained(log: Sequence[Json], name: str) -> str:
    """Return the audit's line on whether training made the old weights better.

    Args:
        log: of a network, the old weights validated as step 0.
        name: of the network; `` of a run's only one.
    """
    scores = [event["scores"]["score"] for event in log if event["event"] == "validation"]
    first, best = scores[0], max(scores)
    start = f"{name}: " if name else ""
    if best <= first:
        return (
            f"{start}no better than the run it began from, whose weights are kept: mean Dice "
            f"{first:.4f} on the validation images looked at while training, at best "
            f"{max(scores[1:]):.4f} later"
        )
    return (
        f"{start}better than the run it began from: mean Dice {first:.4f} -> {best:.4f} on the "
        "validation images looked at while training"
    )


def _outputs(decisions: Json) -> list[str]:
    """Return what each channel of the answer stands for; `` is the background."""
    return [*([] if decisions.get("regions") else [""]), *decisions["labels"]]


def _one_of(origin: Run, number: int) -> dict[str, Tensor]:
    """Return the weights of one network of a run."""
    held, count = origin.weights(), origin.decisions.get("folds", 1)
    if count == 1:
        return held
    start = f"members.{number % count}."
    return {name.removeprefix(start): t for name, t in held.items() if name.startswith(start)}
