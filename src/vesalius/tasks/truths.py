# SPDX-License-Identifier: Apache-2.0
"""Truths: from the label columns of rows to the kind of a target and the text of each truth."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vesalius.errors import CohortError, UsageError
from vesalius.tasks.class_order import class_order, grade_order
from vesalius.tasks.targets import KINDS, UNKNOWN, Target, TargetKind, listed, write_labels
from vesalius.types import Json

Labelled = list[tuple[Json, str]]  # rows with the text of their truth

MOST_CLASSES = 100
MEASURED = 20  # a number with more distinct values than this is measured, not a class
_YES = frozenset({"1", "1.0", "true", "yes", "y", "present", "positive"})
_NO = frozenset({"0", "0.0", "false", "no", "n", "absent", "negative"})
_UNSURE = frozenset({"-1", "-1.0", "?", "unknown", "uncertain", "unsure"})
_SEVERAL = re.compile(r"[;|]")  # between the labels of one text


def read_truths(
    rows: Sequence[Json],
    columns: Sequence[str],
    names: Sequence[str],
    kind: str = "auto",
    known: Target | None = None,
) -> tuple[Target, Labelled, list[str]]:
    """Return the target, the rows that bear a truth, and lines for the audit.

    Args:
        rows: of usable images.
        columns: one column, or several that each say yes or no to one label.
        names: of the columns, for the user.
        kind: `auto`, a kind of target, or one with its classes in order: `ordinal:low<mid<high`.
            `auto` takes numbers that are fractional, or have more than 20 distinct values, for a
            regression; text of which several hold `;` or `|` between names that recur, and
            several columns, for a multi-label target; else two classes for a binary target and
            more for a multi-class one. Nothing tells grades from classes: `ordinal` is for the
            user to say.
        known: the target of a run: its kind and classes hold, and the rows may lack some.

    Raises:
        UsageError: a kind that the columns do not fit.
        CohortError: too few or too many classes, or one that `known` has not.
    """
    name = "+".join(names)
    asked, order = _asked(kind, len(columns), known)
    held = [row for row in rows if any(_is_known(row[column]) for column in columns)]
    audit = []
    if len(held) < len(rows):
        audit.append(f"{len(rows) - len(held)} images bear no '{name}' and are left out")
    finite = [row for row in held if all(_is_finite(row[column]) for column in columns)]
    if len(finite) < len(held):
        audit.append(f"{len(held) - len(finite)} images with an infinite '{name}' are left out")
    values = [row[columns[0]] for row in finite]
    kind = asked if asked != "auto" else _guess(values, len(columns))
    if kind == "regression":
        texts = [repr(_number(value, name)) for value in values]
        target = known or _regression(name, texts)
    elif kind == "multilabel":
        states = _states(finite, columns, names, known)
        target = known or _multilabel(name, states, audit)
        states = [{n: state.get(n, False) for n in target.classes} for state in states]
        told = [any(value is not None for value in state.values()) for state in states]
        if not all(told):
            audit.append(f"{told.count(False)} images of which no label is known are left out")
        finite = [row for row, is_told in zip(finite, told, strict=True) if is_told]
        texts = [write_labels(target.classes, s) for s, t in zip(states, told, strict=True) if t]
    else:
        texts = [_class(value, name) for value in values]
        target = known or _classes(name, kind, texts, order)
        target.check(texts)
    audit.append(_line(target, texts, asked == "auto"))
    return target, list(zip(finite, texts, strict=True)), audit


def _asked(kind: str, columns: int, known: Target | None) -> tuple[str, tuple[str, ...]]:
    """Return the kind and the order of its classes that the user, or a run, asks for."""
    asked, _, listing = kind.partition(":")
    order = tuple(part.strip() for part in listing.split("<")) if listing else ()
    if asked not in ("auto", *KINDS) or (
        order and asked not in ("binary", "multiclass", "ordinal")
    ):
        raise UsageError(
            f"target_kind must be one of auto, {', '.join(KINDS)}, and may name the classes of a "
            f"binary, multiclass or ordinal target in order ('ordinal:low<mid<high'); got '{kind}'"
        )
    if known is not None:
        if asked not in ("auto", known.kind):
            raise UsageError(f"target_kind must be '{known.kind}', as in the run, got '{kind}'")
        asked, order = known.kind, ()
    if columns > 1 and asked not in ("auto", "multilabel"):
        raise UsageError(
            f"several label columns make a multilabel target, not one of kind '{asked}'; name one "
            "column"
        )
    return asked, order


def _guess(values: Sequence[Any], columns: int) -> str:
    """Return the kind that values suggest; `classes` for two classes or more."""
    if columns > 1:
        return "multilabel"
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if values and len(numbers) == len(values):
        fractional = any(float(number) != int(number) for number in numbers)
        return "regression" if fractional or len(set(numbers)) > MEASURED else "classes"
    distinct = {str(value).strip() for value in values}
    sets = [_tokens(text) for text in distinct]
    shared = Counter(token for tokens in sets for token in set(tokens))
    several = any(len(tokens) > 1 for tokens in sets)
    return "multilabel" if several and max(shared.values()) > 1 else "classes"


def _regression(name: str, texts: Sequence[str]) -> Target:
    if len(set(texts)) < 2:
        raise CohortError(
            f"the target '{name}' must have two distinct numbers at least, got {len(set(texts))}"
        )
    return Target(name, "regression", ())


def _multilabel(name: str, states: Sequence[dict[str, bool | None]], audit: list[str]) -> Target:
    """Return the target; a label that no case, or every case, bears teaches nothing."""
    found = list(dict.fromkeys(label for state in states for label in state))
    held = {label: {state.get(label, False) for state in states} for label in found}
    kept = [label for label in found if {True, False} <= held[label]]
    for value, where in ((False, "in no case"), (True, "in every case")):
        constant = [label for label in found if label not in kept and value in held[label]]
        if constant:
            audit.append(f"labels present {where}, and left out: {listed(constant)}")
    unknown = [label for label in found if held[label] == {None}]
    if unknown:
        audit.append(f"labels known of no case, and left out: {listed(unknown)}")
    if not 1 <= len(kept) <= MOST_CLASSES:
        raise CohortError(
            f"the target '{name}' must have 1 to {MOST_CLASSES} labels that some cases bear and "
            f"others do not, got {len(kept)} (of {listed(found) or 'none'})"
        )
    return Target(name, "multilabel", tuple(kept))


def _classes(name: str, kind: str, texts: Sequence[str], order: tuple[str, ...]) -> Target:
    found = set(texts)
    wanted = {"binary": (2, 2), "ordinal": (3, MOST_CLASSES)}.get(kind, (2, MOST_CLASSES))
    if not wanted[0] <= len(found) <= wanted[1]:
        span = "2" if kind == "binary" else f"{wanted[0]} to {wanted[1]}"
        raise CohortError(
            f"the target '{name}' must have {span} classes, got {len(found)}"
            + (f": {listed(class_order(found))}" if found else "")
        )
    if order and set(order) != found:
        raise UsageError(
            f"the classes of '{name}' in order must be {listed(class_order(found))}, got "
            f"{listed(order)}"
        )
    chosen: TargetKind = "binary" if len(found) == 2 else "multiclass"
    if kind != "classes":
        chosen = kind  # type: ignore[assignment]  # checked above
    arranged = order or (grade_order(found) if kind == "ordinal" else class_order(found))
    return Target(name, chosen, tuple(arranged))


def _states(
    rows: Sequence[Json], columns: Sequence[str], names: Sequence[str], known: Target | None
) -> list[dict[str, bool | None]]:
    """Return label -> whether each row bears it, from a column a label or from text."""
    values = [row[columns[0]] for row in rows]
    single = set(known.classes) <= set(names) if known else all(map(_yes_or_no, values))
    if len(columns) > 1 or single:
        if known and not single:
            raise UsageError(
                f"the target must name the columns {listed(known.classes)}, as in the run, got "
                f"{listed(names)}"
            )
        return [{n: _state(row[c], n) for n, c in zip(names, columns, strict=True)} for row in rows]
    states = _split(values, names[0])
    if known:
        known.check(write_labels(list(state), state) for state in states)
    return states


def _split(values: Sequence[Any], name: str) -> list[dict[str, bool | None]]:
    """Return the labels that each text names; a label that it does not name is absent."""
    states: list[dict[str, bool | None]] = []
    for value in values:
        state: dict[str, bool | None] = {}
        for token in _tokens(str(value)):
            label = token.removeprefix(UNKNOWN).strip()
            if not label:
                raise UsageError(
                    f"the target '{name}' holds '{value}': a question mark stands before the "
                    "label that is unknown"
                )
            state[label] = None if token.startswith(UNKNOWN) else True
        states.append(state)
    order = class_order(label for state in states for label in state)
    return [{label: state.get(label, False) for label in order} for state in states]


def _tokens(text: str) -> list[str]:
    return [part.strip() for part in _SEVERAL.split(text) if part.strip()]


def _yes_or_no(value: Any) -> bool:
    return str(value).strip().lower() in _YES | _NO | _UNSURE


def _state(value: Any, name: str) -> bool | None:
    """Return whether a label is present; None where the column is empty or unsure."""
    text = str(value).strip().lower() if _is_known(value) else "?"
    if not _yes_or_no(text):
        raise UsageError(
            f"the column '{name}' of a multilabel target must hold 0 or 1, yes or no (empty or -1 "
            f"where it is unknown), got '{value}'"
        )
    return None if text in _UNSURE else text in _YES


def _number(value: Any, name: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except ValueError:
        number = float("nan")
    if not math.isfinite(number):
        raise UsageError(f"the target '{name}' of a regression must hold numbers, got '{value}'")
    return number


def _class(value: Any, name: str) -> str:
    if isinstance(value, float):
        if not value.is_integer():
            raise UsageError(
                f"the target '{name}' holds the number {value}: classes are text or whole "
                "numbers; a measured number is learned by a regression"
            )
        value = int(value)
    return str(value).strip()


def _is_known(value: Any) -> bool:
    return value is not None and value == value and str(value).strip() != ""


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or not math.isinf(value)


def _line(target: Target, texts: Sequence[str], guessed: bool) -> str:
    """Return the audit's line on the target."""
    if target.kind == "regression":
        numbers = [target.number(text) for text in texts]
        span = f" from {min(numbers):g} to {max(numbers):g}" if numbers else ""
        what = f"{len(set(numbers))} distinct numbers{span}"
    elif target.kind == "binary":
        what = f"'{target.classes[1]}' (positive) or '{target.classes[0]}'"
    else:
        what = listed(target.classes)
    advice = "; --target-kind chooses another kind" if guessed else ""
    return f"target '{target.name}' is {target.kind}: {what}{advice}"
