# SPDX-License-Identifier: Apache-2.0
"""Slices of one orientation told apart where positions repeat: contrast, time, duplicates.

Contrast (echo, image type, b-value, …) makes stacks of their own; time (temporal position, trigger
time, acquisition, …) makes time points of one stack; what nothing tells apart is a duplicate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from vesalius.io.dicom.placement import SAME_MM, normal_of, place
from vesalius.io.dicom.slices import Slice

# Time points may lie this far apart in their plane and still share a grid.
_SAME_PLANE_MM = 0.1
_LAYERS = 16  # stacks told apart by their shift in the plane


def _tail(s: Slice) -> Hashable:
    return s.image_type[2:], s.component


# What tells contrasts apart, in this order; each becomes a stack of its own.
_CONTRASTS: tuple[tuple[str, Callable[[Slice], Any]], ...] = (
    ("echo", lambda s: s.echo_time),
    ("type", _tail),
    ("b-value", lambda s: s.b_value),
    ("inversion", lambda s: s.header.inversion_time),
    ("repetition", lambda s: s.header.repetition_time),
    ("kernel", lambda s: s.header.kernel),
)
# What tells time points apart, in this order.
_TIMES: tuple[tuple[str, Callable[[Slice], Any]], ...] = (
    ("temporal position", lambda s: s.temporal),
    ("trigger time", lambda s: s.trigger_time),
    ("acquisition", lambda s: s.acquisition),
    ("time", lambda s: s.time),
)


class Separated(NamedTuple):
    """One stack to be: its time points, each sorted along the normal, and what was left out."""

    label: str
    times: list[list[Slice]]
    duplicates: list[Slice]


def separate(members: list[Slice]) -> list[Separated]:
    """Drop exact copies, then tell repeated positions apart by contrast and time."""
    kept: list[Slice] = []
    copies: list[tuple[Slice, Slice]] = []  # and what it is a copy of
    seen: dict[Hashable, Slice] = {}
    for s in members:
        instance = s.header.sop_instance
        marks = {(instance, s.frame)} if instance else set()
        if s.header.sha256:
            marks.add((s.header.sha256, s.frame))
        twin = next((seen[mark] for mark in marks if mark in seen), None)
        if twin is None:
            kept.append(s)
        else:
            copies.append((s, twin))
        seen |= dict.fromkeys(marks, twin or s)
    parts = _split(kept, "")
    owner = {id(s): part for part in parts for time in part.times for s in time}
    for copy, twin in copies:
        owner.get(id(twin), parts[0]).duplicates.append(copy)
    return parts


def _split(members: list[Slice], label: str) -> list[Separated]:
    index = _positions(members)
    count = max(index) + 1
    repeats = Counter(index).values()
    if max(repeats) == 1:
        return _acquisitions(members, index, label) or [
            Separated(label, [_ordered(members, index)], [])
        ]
    for name, value in _CONTRASTS:
        groups = _grouped(members, value)
        if len(groups) > 1 and all(
            2 * len(set(_of(group, members, index))) >= count for group in groups.values()
        ):
            return [
                part
                for key, group in groups.items()
                for part in _split(group, f"{label} {name} {_text(key)}".strip())
            ]
    if min(repeats) == max(repeats):
        times = list(_TIMES)
        if max(repeats) > 2 or count == 1 or len({s.path for s in members}) == 1:
            times.append(("number", lambda s: s.number))
        for _, value in times:
            ranked = _ranked(members, index, value)
            if ranked:
                return [Separated(label, ranked, [])]
    else:
        for name, value in _TIMES:
            groups = _grouped(members, value)
            if len(groups) > 1 and all(
                2 <= len(group) == len(set(_of(group, members, index))) for group in groups.values()
            ):
                return [
                    Separated(f"{label} {name} {_text(key)}".strip(), [_sorted(group)], [])
                    for key, group in groups.items()
                ]
    return _layers(members, index, label)


def _acquisitions(members: list[Slice], index: list[int], label: str) -> list[Separated]:
    """Tell acquisitions apart that share no position, where only each alone is evenly spaced.

    Two sweeps over one region rarely start in step; together they would be one uneven stack.
    """
    groups = _grouped(members, lambda s: s.acquisition)
    ordered = _ordered(members, index)
    changes = sum(a.acquisition != b.acquisition for a, b in pairwise(ordered))
    are_apart = changes < len(groups)  # one after the other
    if are_apart or min(map(len, groups.values())) < 3 or _is_even(ordered):
        return []
    parts = {key: _sorted(group) for key, group in groups.items()}
    if not all(map(_is_even, parts.values())):
        return []
    return [
        Separated(f"{label} acquisition {_text(key)}".strip(), [part], [])
        for key, part in parts.items()
    ]


def _is_even(ordered: list[Slice]) -> bool:
    positions = np.array([s.position for s in ordered])
    placed = place(positions, ordered[0].orientation or (), pixel=1.0)
    return placed.even and not placed.gaps


def _layers(members: list[Slice], index: list[int], label: str) -> list[Separated]:
    """Keep the first slice at each position; the others are duplicates, or shifted in the plane.

    Shifted ones form stacks of their own, a few deep; what is left then stands alone.
    """
    parts = []
    left = list(zip(members, index, strict=True))
    for _ in range(_LAYERS):
        kept: dict[int, Slice] = {}
        copies: list[Slice] = []
        shifted: list[tuple[Slice, int]] = []
        for s, rank in left:
            twin = kept.setdefault(rank, s)
            if twin is not s and same_spot(s, twin):
                copies.append(s)
            elif twin is not s:
                shifted.append((s, rank))
        parts.append(Separated(label, [[kept[n] for n in sorted(kept)]], copies))
        left, label = shifted, label if "shifted" in label else f"{label} shifted".strip()
        if not left:
            return parts
    return parts + [Separated(label, [[s]], []) for s, _ in left]


def is_side_by_side(members: list[Slice]) -> bool:
    """Return whether three or more slices lie in one plane, all at different places."""
    if len(members) < 3 or max(_positions(members)) > 0:
        return False
    spots = np.array([s.position for s in members])
    return len(np.unique(np.rint(spots / _SAME_PLANE_MM), axis=0)) == len(members)


def same_spot(a: Slice, b: Slice) -> bool:
    """Return whether two slices begin at one point."""
    return bool(np.abs(np.subtract(a.position or (), b.position or ())).max() <= _SAME_PLANE_MM)


def _positions(members: Sequence[Slice]) -> list[int]:
    """Return for each slice the rank of its position along the normal; equal ones share it."""
    normal = normal_of(members[0].orientation or ())
    along = np.array([s.position for s in members]) @ normal
    order = np.argsort(along, kind="stable")
    ranks = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_MM)])
    index = np.empty(len(members), int)
    index[order] = ranks
    return [int(n) for n in index]


def _sorted(members: list[Slice]) -> list[Slice]:
    return _ordered(members, _positions(members))


def _ordered(members: list[Slice], index: list[int]) -> list[Slice]:
    return [s for _, s in sorted(zip(index, members, strict=True), key=lambda pair: pair[0])]


def _of(group: list[Slice], members: list[Slice], index: list[int]) -> list[int]:
    wanted = {id(s) for s in group}
    return [n for s, n in zip(members, index, strict=True) if id(s) in wanted]


def _grouped(members: list[Slice], value: Callable[[Slice], Any]) -> dict[Any, list[Slice]]:
    groups: dict[Any, list[Slice]] = defaultdict(list)
    for s in members:
        groups[value(s)].append(s)
    return groups


def _ranked(
    members: list[Slice], index: list[int], value: Callable[[Slice], Any]
) -> list[list[Slice]]:
    """Return the time points when `value` tells all slices of each position apart, else []."""
    at: dict[int, list[tuple[Any, Slice]]] = defaultdict(list)
    for s, place_of in zip(members, index, strict=True):
        at[place_of].append((value(s), s))
    for there in at.values():
        moments = [moment for moment, _ in there]
        if None in moments or len(set(moments)) < len(moments):
            return []
        there.sort(key=lambda pair: pair[0])
        spots = np.array([s.position for _, s in there])
        if np.abs(spots - spots[0]).max() > _SAME_PLANE_MM:
            return []
    return [[at[n][t][1] for n in sorted(at)] for t in range(len(at[0]))]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(filter(None, (_text(part) for part in value)))
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
