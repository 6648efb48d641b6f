# SPDX-License-Identifier: Apache-2.0
"""`vesalius scan`: a folder of images in any format and layout becomes a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts.scan import ScanResult


def scan(
    data: PathLike,
    *,
    out: PathLike,
    labels: PathLike | None = None,
    pixels: bool = True,
    workers: int | None = None,
    license: str = "",  # noqa: A002 - the field's own word, and the option's name
    pseudonym_key: PathLike | None = None,
    patient_pattern: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> ScanResult:
    """Scan the folder (or file) `data` into the cohort folder `out`.

    Only new and changed files are read; the same command after a crash, or tomorrow, goes on
    where it was. A file that cannot be read becomes a finding, never a stop.

    Args:
        data: folder of images in any mix of formats and layouts, or a single container file.
        out: the cohort folder, created or brought up to date.
        labels: a CSV, TSV, Parquet or JSON table to join by patient, file, study or series.
        pixels: also read the pixels, for statistics, hashes and quality findings.
        workers: processes; default one per core.
        license: license of the data as the user knows it; else what the folder states.
        pseudonym_key: key file to share pseudonyms with another cohort.
        patient_pattern: regular expression whose first group is the patient in a file's path.
        limits: what reading one file may take in memory.
        progress: called as `progress(stage, done, total)` from time to time.

    Raises:
        UsageError: `data` does not exist or an argument is wrong.
        CohortError: `out` is not a cohort, or another scan of it is running.
    """
    from vesalius.cohorts.scan import scan as scan_cohort

    return scan_cohort(
        Path(data),
        Path(out),
        labels=None if labels is None else Path(labels),
        pixels=pixels,
        workers=workers,
        license=license,
        pseudonym_key=None if pseudonym_key is None else Path(pseudonym_key),
        patient_pattern=patient_pattern,
        limits=limits,
        progress=progress,
    )
