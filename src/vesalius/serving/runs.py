# SPDX-License-Identifier: Apache-2.0
"""The runs that a server applies: what their plans say, read without loading any network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import RunError
from vesalius.files import read_json
from vesalius.types import PathLike

# What a run's folder holds beside what it answers with: scores, reports, lists of images. The lines
# of quality.json are written anew by `vesalius evaluate`.
_BESIDE = frozenset({
    "plan.json", "metrics.json", "report.json", "split.json", "seen.json", "folds.json",
    "quality.json", "source.json",
})  # fmt: skip
_WEIGHTS = frozenset({".safetensors", ".onnx", ".xml", ".bin", ".json"})
_PIECE = 1 << 20


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

    def digest(self) -> str:
        """Return the SHA-256 of all that the run answers with: plan, weights, normalizer, ….

        Raises:
            RunError: a file cannot be read.
        """
        whole = hashlib.sha256()
        try:
            plan = read_json(self.path / "plan.json")
            kept = {name: plan.get(name) for name in ("id", "decisions", "measured")}
            whole.update(json.dumps(kept, sort_keys=True).encode())
            for path in sorted(self.path.iterdir()):
                if path.suffix not in _WEIGHTS or path.name in _BESIDE or not path.is_file():
                    continue
                one = hashlib.sha256()
                with open(path, "rb") as stream:
                    while piece := stream.read(_PIECE):
                        one.update(piece)
                whole.update(f"{path.name}\0{one.hexdigest()}\0".encode())
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(
                f"the run '{self.path}' cannot be read whole ({type(error).__name__}); restore its "
                "folder"
            ) from error
        return whole.hexdigest()
