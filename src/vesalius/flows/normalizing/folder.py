# SPDX-License-Identifier: Apache-2.0
"""The folder of a normalization: names of its files, whose request it holds, room for it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import BudgetError, RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

NORMALIZATION = "normalization.json"
REFERENCE = "reference.json"
QUANTILE = "quantile.json"
NORMALIZER = "normalizer.json"
PAGE = "normalization.html"
_BYTES_PER_VOXEL = 4


def place(data: PathLike | Cohort, out: Path) -> str:
    """Return a hash of where a folder of images lies, `` for a cohort: its rows tell."""
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.cohort import INFO

    if isinstance(data, Cohort) or (Path(data) / INFO).is_file():
        return ""
    place = Path(data).resolve()
    if place == out.resolve() or place in out.resolve().parents:
        raise UsageError(
            f"to ('{out}') lies in the data: the next scan would take the results for images; "
            "choose a folder outside"
        )
    return sha256(str(place).encode()).hexdigest()


def claim(out: Path, request: Json) -> None:
    """Write what is known of the request into the folder, or refuse one that holds another.

    A request that ended before its first certificate holds nothing: another one takes its place.
    """
    record = read_record(out) if (out / NORMALIZATION).exists() else {"request": {}}
    before = record["request"]
    changed = [name for name in request if request[name] != before.get(name, request[name])]
    if changed:
        if "series" in record or any(out.glob("*.certificate.json")):
            raise UsageError(
                f"'{out}' holds another normalization (different: {', '.join(changed)}); choose "
                "another --to, or remove the folder"
            )
        if "data" in changed and before["data"] and (out / "cohort").is_dir():
            shutil.rmtree(out / "cohort")  # that request's own scan, of other data
        for name in (REFERENCE, QUANTILE):
            (out / name).unlink(missing_ok=True)
        before = {}
    if not request.keys() <= before.keys():
        write_json(out / NORMALIZATION, {"request": request})


def read_record(folder: Path) -> Json:
    """Return what a folder's `normalization.json` holds; raise `RunError` where there is none."""
    try:
        record: Json = read_json(folder / NORMALIZATION)
    except (OSError, ValueError) as error:
        raise RunError(
            f"'{folder}' holds no normalization ({type(error).__name__} at {NORMALIZATION}); give "
            "the folder of `vesalius normalize --to`"
        ) from error
    return record


def check_disk(out: Path, rows: Sequence[Json]) -> None:
    """Raise where the disk has no room for the series of these rows."""
    needed = 0
    for row in rows:
        voxels = _BYTES_PER_VOXEL
        for side in row["shape"] or ():
            voxels *= side
        needed += voxels
    free = shutil.disk_usage(out).free
    if needed > 0.9 * free:
        raise BudgetError(
            f"the normalized series take up to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free; choose a --to on a larger disk, or a --where"
        )
