# SPDX-License-Identifier: Apache-2.0
"""The runs that a server applies: what their plans say, read without loading any network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import RunError
from vesalius.files import read_json
from vesalius.types import PathLike


@dataclass(frozen=True, slots=True)
class ServedRun:
    """One run: its folder, the hash of its plan, its task, and the modalities it was trained on.

    No modalities: trained on images that state none, it takes any.
    """

    path: Path
    id: str
    task: str
    modalities: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run in short words, for objects and lists."""
        return f"{self.task}-{self.id[:8]}"

    @classmethod
    def load(cls, path: PathLike) -> ServedRun:
        """Read a run's plan.

        Raises:
            RunError: no run folder, or a run whose training is not finished.
        """
        folder = Path(path).resolve()
        try:
            plan = read_json(folder / "plan.json")
            number, task = str(plan["id"]), str(plan["task"])
            finished = bool(plan["measured"].get("finished"))
            modalities = plan.get("fingerprint", {}).get("modalities", [])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"'{folder}' is no run folder ({type(error).__name__} at plan.json); give the "
                "folder that `vesalius train` printed"
            ) from error
        if not finished:
            raise RunError(f"the run '{folder}' is not finished; finish its training first")
        named = sorted({str(one) for one in modalities}) if all(modalities) else []
        return cls(folder, number, task, tuple(named))
