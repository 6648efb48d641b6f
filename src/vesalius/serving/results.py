# SPDX-License-Identifier: Apache-2.0
"""What a server makes of a run's answer, and the results that are no DICOM objects.

DICOM objects become instances of the state. Other files (FHIR reports, label maps of images that
are no DICOM) lie below `results/`, named by their content; the answer of their job lists them, and
by that they count. A file that no answer lists was left by a kill and goes at the next start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vesalius.errors import UsageError, did_you_mean
from vesalius.files import fsync_folder
from vesalius.serving.state import State
from vesalius.types import Json

# name on the command line -> format of `vesalius predict`
KINDS = {
    "seg": "dicom-seg",
    "sr": "dicom-sr",
    "key-images": "key-images",
    "gsps": "gsps",
    "rtstruct": "rtstruct",
    "fhir": "fhir",
}
DEFAULT = ("seg", "sr")
_FOLDER = "results"
_SETTING = "results"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TYPES = {
    ".fhir.json": "application/fhir+json",
    ".json": "application/json",
    ".nii.gz": "application/gzip",
}
_KEPT = (".fhir.json", ".nii.gz")


def parse(text: str) -> tuple[str, ...]:
    """Read names that are joined by commas.

    Raises:
        UsageError: an unknown one, or none.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in KINDS:
            raise UsageError(
                f"--results takes {', '.join(KINDS)}, joined by commas; got '{name}'."
                f"{did_you_mean(name, KINDS)}"
            )
    if not names:
        raise UsageError(f"--results needs one of {', '.join(KINDS)} at least")
    return names


def remember(state: State, names: Sequence[str]) -> None:
    """Write down what is to be made, for the workers."""
    with state.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_SETTING, ",".join(names)))


def chosen(state: State) -> tuple[str, ...]:
    """Return what is to be made."""
    row = state.connection().execute(
        "SELECT value FROM meta WHERE name = ?", (_SETTING,)
    ).fetchone()  # fmt: skip
    return parse(row[0]) if row else DEFAULT


def formats(task: str, names: Sequence[str], *, dicom: bool) -> str:
    """Return the `--format` of `vesalius predict` that makes what is wanted.

    Args:
        task: of the run.
        names: what is wanted; what a task cannot make is left out.
        dicom: whether the images are DICOM files; of others there are label maps and FHIR alone.
    """
    fhir = ["fhir"] if "fhir" in names else []
    if not dicom:
        return ",".join(["nifti" if task == "segment" else "json", *fhir])
    if task == "segment":
        maps = [KINDS[name] for name in ("seg", "rtstruct") if name in names]
        rest = [KINDS[name] for name in names if name not in ("seg", "rtstruct")]
        return ",".join([*(maps or ["nifti"]), *rest])
    key = ["key-images"] if "key-images" in names else []
    return ",".join(["auto" if "sr" in names else "json", *key, *fhir])


def to_keep(files: Sequence[Path]) -> list[Path]:
    """Return which of an answer's files are results of their own beside DICOM objects."""
    return [path for path in files if path.name.endswith(_KEPT)]


def keep(state: State, path: Path) -> Json:
    """Copy a file below `results/`, durably; returns its line for the answer of its job."""
    folder = state.folder / _FOLDER
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        fsync_folder(state.folder)
    with open(path, "rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
        with os.fdopen(handle, "wb") as target:
            source.seek(0)
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    os.replace(name, folder / digest)
    fsync_folder(folder)
    return {"name": path.name, "sha256": digest, "bytes": path.stat().st_size}


def find(state: State, job: int, name: str) -> tuple[Path, str] | None:
    """Return the path and media type of a result of a job, or None."""
    row = state.connection().execute("SELECT answer FROM jobs WHERE id = ?", (job,)).fetchone()
    for one in json.loads(row[0]).get("files", ()) if row else ():
        if one["name"] == name and _DIGEST.fullmatch(one["sha256"]):
            return state.folder / _FOLDER / one["sha256"], media_type(name)
    return None


def media_type(name: str) -> str:
    """Return the media type of a result by its name."""
    found = (kind for suffix, kind in _TYPES.items() if name.endswith(suffix))
    return next(found, "application/octet-stream")


def sweep(state: State) -> int:
    """At the start, remove files that no answer lists; returns how many those were."""
    folder = state.folder / _FOLDER
    if not folder.is_dir():
        return 0
    rows = state.connection().execute(
        "SELECT json_extract(f.value, '$.sha256') FROM jobs, json_each(jobs.answer, '$.files') f"
    )
    listed = {digest for (digest,) in rows}
    left = [path for path in folder.iterdir() if path.name not in listed]
    for path in left:
        path.unlink()
    return len(left)
