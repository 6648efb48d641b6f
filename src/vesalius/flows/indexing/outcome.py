# SPDX-License-Identifier: Apache-2.0
"""What `vesalius index` did, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vesalius.tasks.retrieve.search_own import PHASH
from vesalius.types import Json

_SHOWN = 10  # images that could not be read, named one by one


@dataclass(frozen=True, slots=True)
class Indexed:
    """What was done to an archive.

    Attributes:
        path: of the archive.
        version: that holds all of it.
        entries: that it holds.
        images: of the cohort that were meant.
        embedded: images that the encoder looked at.
        renewed: images of which words or facts alone had changed.
        removed: entries that are gone.
        of_other_cohorts: entries that other cohorts brought.
        failures: key of an image that could not be read -> why.
        seconds: spent on reading and embedding.
        columns: that can be filtered by -> their types.
        left_out: columns of the cohort that the archive was made without.
        remade: whether all vectors were made anew.
    """

    path: Path
    version: int
    entries: int
    images: int
    embedded: int
    renewed: int
    removed: int
    of_other_cohorts: int
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    columns: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    remade: bool = False

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {**asdict(self), "path": str(self.path)}

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        rate = f", {self.embedded / self.seconds:.0f} images/s" if self.seconds > 1 else ""
        done = f"{self.embedded:,} images embedded{rate}; {self.renewed:,} with new words or facts"
        out = [
            f"{done}; {self.removed:,} removed",
            f"{self.entries:,} images in the archive, version {self.version}",
            f"filters: {', '.join(sorted(set(self.columns) - {PHASH}))}",
        ]
        if self.of_other_cohorts:
            out.append(f"{self.of_other_cohorts:,} of them from other cohorts")
        if self.remade:
            out.append("the archive was made anew; other cohorts that it held: index them again")
        if self.left_out:
            out.append(
                f"the archive was made without {', '.join(self.left_out)}: --reembed adds columns"
            )
        if self.failures:
            out.append(f"{len(self.failures):,} images could not be read and are not in it:")
            out += [f"  {key}: {why}" for key, why in list(self.failures.items())[:_SHOWN]]
            if len(self.failures) > _SHOWN:
                out.append(f"  … and {len(self.failures) - _SHOWN:,} more (--json names all)")
        return out
