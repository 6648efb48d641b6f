# SPDX-License-Identifier: Apache-2.0
"""The network of a run that was exported, in the place of PyTorch's.

An exported folder is the run without what it was made from: its plan's decisions, normalizer,
quality lines and post-processing, with the network in a file of an engine. Its `export.json` says
which file, and holds the SHA-256 of each.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vesalius.errors import RunError
from vesalius.files import read_json
from vesalius.networks.engine import SUFFIXES, EngineNetwork
from vesalius.tasks.run import EXPORT, Run


def exported_network(run: Run) -> EngineNetwork:
    """Open the network of an exported folder, at the plan's precision.

    Raises:
        RunError: a file is missing or is not the one that was exported.
        MissingDependency: the engine is not installed.
    """
    try:
        record = read_json(run.path / EXPORT)
        digests, suffix = dict(record["files"]), SUFFIXES[record["to"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"'{run.path / EXPORT}' cannot be read ({error}); export again") from error
    for name, digest in digests.items():
        if digest_of(run.path / name) != digest:
            raise RunError(
                f"'{run.path / name}' is not the file that was exported; copy the folder again, "
                "whole"
            )
    half = run.decisions["precision"] == "bf16-mixed"
    return EngineNetwork(run.path / f"network{suffix}", half=half)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file; `` where it is absent."""
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
