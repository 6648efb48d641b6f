# SPDX-License-Identifier: Apache-2.0
"""From the labels that are asked for to the structures of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vesalius.errors import UsageError, did_you_mean
from vesalius.tasks.segment.structures import MOST_CLASSES, MOST_REGIONS
from vesalius.types import Json


def choose(
    known: Mapping[str, str],
    overlaps: Iterable[Sequence[int]] = (),
    *,
    labels: str = "",
    ignore: str = "",
) -> Json:
    """Return the decisions `labels`, `values`, `structures`, `regions` and `ignore`.

    Args:
        known: value of the masks -> its name.
        overlaps: pairs of values that share voxels in some mask.
        labels: what to learn, joined by commas: a name or a value of the masks, or several of
            them under a name of their own, `whole=anterior+posterior`; empty for all.
        ignore: names or values, joined by commas, whose voxels are to count nowhere.

    A label map that comes back holds the masks' own values where each structure is one value of its
    own; else 1, 2, … in the order of the structures.

    Raises:
        UsageError: a name or value that no mask has, one that is asked for twice, or too many.
    """
    ignored = _values(ignore.split(","), known, "--ignore") if ignore else []
    if labels:
        structures = _asked(labels, known)
    else:
        structures = {name: [int(v)] for v, name in known.items() if int(v) not in ignored}
    for name, values in structures.items():
        both = [known[str(value)] for value in values if value in ignored]
        if both:
            raise UsageError(f"'{both[0]}' is to be ignored, and '{name}' is to be learned of it")
    if not structures:
        raise UsageError("nothing is left to learn: --ignore names every label of the masks")
    owners = [set(values) for values in structures.values()]
    meeting = {frozenset(pair) for pair in overlaps}
    regions = any(
        one & other or any(frozenset((a, b)) in meeting for a in one for b in other)
        for n, one in enumerate(owners)
        for other in owners[:n]
    )
    most = MOST_REGIONS if regions else MOST_CLASSES
    if len(structures) > most:
        raise UsageError(
            f"at most {most} structures {'that overlap ' if regions else ''}can be learned at "
            f"once, got {len(structures)}; choose fewer with --labels"
        )
    plain = all(len(one) == 1 for one in owners) and len(set.union(*owners)) == len(owners)
    return {
        "labels": list(structures),
        "values": [
            values[0] if plain else place for place, values in enumerate(structures.values(), 1)
        ],
        "structures": structures,
        "regions": regions,
        "ignore": ignored,
    }


def _asked(labels: str, known: Mapping[str, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for part in labels.split(","):
        name, joined, sources = part.strip().partition("=")
        if part.strip() in known.values():  # a name may hold an equals sign
            name, joined, sources = part.strip(), "", ""
        values = _values(sources.split("+") if joined else [name], known, "--labels")
        name = name.strip() if joined else known[str(values[0])]
        if not name:
            raise UsageError(f"'{part.strip()}' of --labels gives no name; write NAME={sources}")
        if name in found:
            raise UsageError(f"--labels must give each structure once, and '{name}' comes twice")
        found[name] = values
    return found


def _values(parts: Sequence[str], known: Mapping[str, str], option: str) -> list[int]:
    """Return the masks' values that some names or numbers mean."""
    by_name = {name: int(value) for value, name in known.items()}
    found = []
    for part in (part.strip() for part in parts):
        if part in by_name:
            found.append(by_name[part])
        elif part in known:
            found.append(int(part))
        else:
            listed = ", ".join(f"{name} ({value})" for value, name in known.items())
            joined = (
                "" if "+" not in part else f" To join labels, name what they make: NAME={part}."
            )
            raise UsageError(
                f"no training mask holds the label '{part}' that {option} names; they hold: "
                f"{listed}.{did_you_mean(part, by_name)}{joined}"
            )
    if len(set(found)) < len(found):
        raise UsageError(f"{option} names a label twice: {', '.join(parts)}")
    return found
