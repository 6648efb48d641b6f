# SPDX-License-Identifier: Apache-2.0
"""What made a result: said in every object that leaves the house."""

from __future__ import annotations

from dataclasses import dataclass

from vesalius.version import __version__

NOT_FOR_DIAGNOSIS = "Not for diagnostic use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A run, and the program that applied it.

    Attributes:
        model: the run in short words, for example `segment-1f2e3d4c`.
        run_id: hash of the run's plan.
        limits: what the run may be used for and what it was measured on, in plain sentences.
        version: of the program.
    """

    model: str
    run_id: str
    limits: str
    version: str = __version__

    @property
    def line(self) -> str:
        """All but the limits, for a picture's margin."""
        return f"Vesalius {self.version}, {self.model}, plan {self.run_id}"
