# SPDX-License-Identifier: Apache-2.0
"""An edited plan: its decisions are taken as they stand, once they have the shape of a plan's.

An edit changes values; it neither adds keys nor takes any away. Networks, heads and encoders of a
classifier may be left out. What follows from the data, or says what the program does, stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vesalius.errors import UsageError, did_you_mean
from vesalius.files import read_json
from vesalius.flows.planning.asked import check_budget
from vesalius.flows.planning.draft import Data, cache_bytes
from vesalius.types import Json, PathLike

_NEEDED = {
    "": ("id", "task", "target", "seed", "request", "decisions", "cohort", "split_digest"),
    "request": (
        "target", "target_kind", "case", "seed", "folds", "model", "from", "encoder", "operating",
        "budget", "normalize", "where", "ungrouped_split", "labels", "ignore", "memory",
    ),
    "cohort": ("digest",),
}  # fmt: skip
# ends of the names of what is not for editing
_KEPT = (
    "decisions.labels", "decisions.values", "decisions.folds", "decisions.classes",
    "decisions.usual_count", "decisions.always", "decisions.case", "decisions.target",
    "decisions.start", "decisions.operating", "decisions.color", "decisions.orientation",
    "decisions.loss", "decisions.structures", "decisions.regions", "decisions.shares",
    "decisions.ignore", "decisions.pairs", "decisions.memory", "decisions.neighbors",
    "optimizer.name", ".facts", ".spatial_dims",
    ".in_channels", ".channels", ".file", ".digest", ".volumes",
)  # fmt: skip
_ABOVE_ZERO = {
    "batch", "spacing", "patch", "window", "size", "slices", "views", "lr", "clip_norm",
    "max_epochs", "widths", "width", "strides", "stride", "kernels", "forced_foreground",
}  # fmt: skip
_SAME_LENGTH = {"spacing", "patch", "window"}
_MAY_BE_NULL = {"class_weights", "locator"}
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "text"),
    (list, "a list"), (dict, "an object"), (type(None), "null"),
)  # fmt: skip


def read_plan(plan: PathLike | Json) -> Json:
    """Return what a plan's record or its file holds.

    Raises:
        UsageError: it is no plan.
    """
    way_out = "`vesalius plan … --out FILE` writes one"
    try:
        held = _plain(plan if isinstance(plan, dict) else read_json(plan))
    except (OSError, ValueError) as error:
        raise UsageError(f"the plan cannot be read (JSON): {error}; {way_out}") from error
    for part, names in _NEEDED.items():
        found = held if not part or not isinstance(held, dict) else held[part]
        missing = [n for n in names if n not in found] if isinstance(found, dict) else names
        if missing:
            raise UsageError(
                f"what was handed in is no plan: {part or 'it'} lacks {', '.join(missing)}; "
                f"{way_out}"
            )
    return held


def refuse_other_data(held: Json, data: Data) -> None:
    """Raise where a plan was made for other data, or more than its decisions was edited.

    Raises:
        UsageError: says what differs, and what to do.
    """
    request = data.request
    if held["cohort"]["digest"] != request["cohort"]:
        raise UsageError(
            "the plan was made for other rows or labels than this cohort has now; make it again "
            "with `vesalius plan`"
        )
    if held["split_digest"] != request["split"]:
        raise UsageError(
            "the plan was made for another split; give the --split file that it was made with, or "
            "make it again with `vesalius plan`"
        )
    for name, of in (("encoder", "encoder"), ("from", "--from")):
        if held["request"][name] != request[name]:
            raise UsageError(
                f"the plan was made with {'another' if held['request'][name] else 'no'} {of}; "
                "give the one that it was made with, or make it again with `vesalius plan`"
            )
    edited = [name for name in ("target", "seed") if held[name] != request[name]]
    if edited:
        raise UsageError(
            f"{', '.join(edited)} of the plan was edited; only its decisions are for editing: make "
            "another plan with `vesalius plan`"
        )


def with_decisions(plan: Json, held: Json) -> Json:
    """Return a plan with the decisions of another one; its audit says what differs.

    Args:
        plan: as this machine would decide.
        held: the plan that was handed in.

    Raises:
        UsageError: an unknown, missing or misshapen decision.
    """
    from vesalius.tasks.normalizing import method_name
    from vesalius.tasks.run import plan_id

    given = held["decisions"]
    changes = list(_compare("decisions", _plain(plan["decisions"]), given))
    method_name(given["normalization"])
    if plan["task"] == "classify" and not (
        given["networks"] or any(encoder["heads"] for encoder in given["frozen"])
    ):
        raise UsageError("the plan trains nothing: leave a network or a head in its decisions")
    word = "planned elsewhere" if plan_id(held) == held["id"] else "edited"
    return {
        **plan,
        "decisions": given,
        "estimates": {"cache_bytes": cache_bytes(plan["task"], plan["fingerprint"], given)},
        "audit": [
            *plan["audit"],
            *(
                f"decision {name.removeprefix('decisions.')} {word}: {what}"
                for name, what in changes
            ),
        ],
    }


def member_name(part: Any) -> str:
    """Return what tells a part of a list of objects from the others: its name, or its encoder."""
    held = part if isinstance(part, dict) else {}
    return str(held.get("name", held.get("encoder")))


def _compare(name: str, planned: Any, given: Any) -> Iterator[tuple[str, str]]:
    """Yield name and change of each edited value; raise at what has not the planned shape."""
    last = name.rpartition(".")[2]
    if name == "decisions.budget":
        if not isinstance(given, dict):
            raise _misfit(name, "an object", given)
        check_budget(given)
    elif name.endswith(_KEPT):
        if given != planned:
            raise UsageError(
                f"the plan's {name} must stay {_shown(planned)}, got {_shown(given)}: it follows "
                "from the data, or says what is done; make another plan with `vesalius plan`"
            )
    elif last in _MAY_BE_NULL and given is None:
        pass
    elif isinstance(planned, dict):
        _check_keys(name, planned, given)
        for key, part in planned.items():
            yield from _compare(f"{name}.{key}", part, given[key])
        return
    elif (members := _members(planned)) is not None:
        found = _chosen(name, members, given)
        for key, part in members.items():
            if key in found:
                yield from _compare(f"{name}.{key}", part, found[key])
            else:
                yield f"{name}.{key}", "left out"
        return
    else:
        _check_value(name, planned, given)
    if given != planned:
        yield name, f"{_shown(planned)} -> {_shown(given)}"


def _check_keys(name: str, planned: Json, given: Any) -> None:
    if not isinstance(given, dict):
        raise _misfit(name, "an object", given)
    for key in given:
        if key not in planned:
            raise UsageError(
                f"the plan's {name} has an unknown key '{key}'; known are {', '.join(planned)}."
                f"{did_you_mean(key, planned)}"
            )
    missing = [key for key in planned if key not in given]
    if missing:
        raise UsageError(f"the plan's {name} lacks {', '.join(missing)}; put it back as planned")


def _members(planned: Any) -> dict[str, Json] | None:
    """Return the parts of a list of objects by their names, None for any other value."""
    if not (isinstance(planned, list) and planned and isinstance(planned[0], dict)):
        return None
    return {member_name(part): part for part in planned}


def _chosen(name: str, members: dict[str, Json], given: Any) -> dict[str, Json]:
    """Return the parts of an edited list of objects by their names."""
    if not isinstance(given, list):
        raise _misfit(name, "a list", given)
    found: dict[str, Json] = {}
    for part in given:
        key = member_name(part)
        if key not in members or key in found:
            raise UsageError(
                f"each part of the plan's {name} must be one of {', '.join(members)}, once; got "
                f"'{key}'.{did_you_mean(key, members)} To have another, make another plan with "
                "--model"
            )
        found[key] = part
    return found


def _check_value(name: str, planned: Any, given: Any) -> None:
    """Raise where a value is not of the planned kind, or a number out of bounds."""
    last = name.rpartition(".")[2]
    if isinstance(planned, list):
        if not isinstance(given, list):
            raise _misfit(name, "a list", given)
        if last in _SAME_LENGTH and len(given) != len(planned):
            raise _misfit(name, f"{len(planned)} values", given)
        for part in given:
            if planned:
                _check_value(name, planned[0], part)
        return
    kind, words = next(pair for pair in _KINDS if isinstance(planned, pair[0]))
    number = kind in (int, float)
    fits: Any = (int, float) if kind is float else kind
    if not isinstance(given, fits) or (number and isinstance(given, bool)):
        raise _misfit(name, words, given)
    if number and (given < 0 or (given == 0 and last in _ABOVE_ZERO)):
        bound = "above 0" if last in _ABOVE_ZERO else "of 0 or more"
        raise _misfit(name, f"{words} {bound}", given)


def _misfit(name: str, wanted: str, given: Any) -> UsageError:
    return UsageError(f"the plan's {name} must be {wanted}, got {_shown(given)}")


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Json) -> Json:
    """Return a copy as strict JSON holds it."""
    plain: Json = json.loads(json.dumps(value, allow_nan=False))
    return plain
