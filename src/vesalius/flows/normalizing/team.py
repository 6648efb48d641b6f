# SPDX-License-Identifier: Apache-2.0
"""Worker processes over the rows of one cohort: they certify, and they fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import DataError, ReadError
from vesalius.files import read_json, write_json
from vesalius.flows.normalizing.arguments import needs_fit
from vesalius.types import Json, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.io.limits import Limits
    from vesalius.normalization import Certificate, Settings

_TOGETHER = 8  # rows a message
# reasons of refusals that come from reading a file
_UNREAD = {"unreadable", ReadError.finding, *(one.finding for one in ReadError.__subclasses__())}
COLUMNS = (
    "key", "root", "files", "member", "format", "patient", "modality", "scanner", "site", "shape",
    "findings", "mask_files", "mask_member", "mask_format", "mask_names",
)  # fmt: skip


class Team:
    """Worker processes over the rows of one cohort."""

    def __init__(
        self,
        cohort: Cohort,
        out: Path | None,
        format: str,  # noqa: A002 - the option's name
        masks: bool,
        workers: int | None,
        limits: Limits | None,
        progress: Progress | None,
    ) -> None:
        self.cohort, self.out, self.format, self.masks = cohort, out, format, masks
        self.workers = workers or len(os.sched_getaffinity(0))
        self.limits, self.progress = limits, progress

    def certify(
        self, rows: Sequence[Json], settings: Settings, *, again: bool = False
    ) -> dict[str, Certificate]:
        """Return key -> certificate; rows that have one from before are not read `again`."""
        from vesalius.flows.normalizing.worker import certificate_path
        from vesalius.normalization import Certificate, Verdict

        found: dict[str, Certificate] = {}
        waiting = []
        for row in rows:
            kept = None if again else self._kept(row["key"])
            if kept is None:
                waiting.append(row)
            else:
                found[row["key"]] = kept
        for sent, results in self._run("certify", waiting, settings, "normalize"):
            for row, record in zip(sent, results, strict=True):
                if record is None:  # three processes died on it
                    found[row["key"]] = Certificate(
                        row["key"], row["modality"], "", Verdict.REFUSED, "limit-exceeded",
                        "reading or normalizing it ends the process: too large for the memory",
                    )  # fmt: skip
                    if self.out is not None:
                        certificate = found[row["key"]].to_json()
                        write_json(certificate_path(self.out, row["key"]), certificate)
                else:
                    found[row["key"]] = Certificate.from_json(record)
        return found

    def _kept(self, key: str) -> Certificate | None:
        """Return a certificate from before that still holds.

        One whose series is gone does not, nor does a refusal that came from reading: the file may
        have been mended since, or the memory that reading may take been raised.
        """
        from vesalius.flows.normalizing.worker import certificate_path
        from vesalius.normalization import Certificate

        if self.out is None or not (path := certificate_path(self.out, key)).exists():
            return None
        kept = Certificate.from_json(read_json(path))
        if kept.output:
            return kept if (self.out / kept.output).exists() else None
        return None if kept.reason in _UNREAD else kept

    def fitted(self, rows: Sequence[Json], settings: Settings) -> dict[str, Any]:
        """Return group -> fitted method, or nothing for a method that needs no fitting."""
        if not needs_fit(settings.method):
            return {}
        fits: dict[str, Any] = {}
        for _, results in self._run("fit", rows, settings, "fit"):
            for group, fit in (results[0] or {}).items():
                if group in fits:
                    fits[group].merge(fit)
                else:
                    fits[group] = fit
        if not fits:
            raise DataError(f"none of the {len(rows)} training images can fit '{settings.method}'")
        return {group: fit.finish() for group, fit in sorted(fits.items())}

    def _run(
        self, kind: str, rows: Sequence[Json], settings: Settings, stage: str
    ) -> Iterator[tuple[list[Json], list[Any]]]:
        from vesalius.cohorts.pool import Died, Pool
        from vesalius.flows.normalizing.worker import Job

        if not rows:
            return
        job = Job(self.cohort, settings, self.out, self.format, self.masks, self.limits)
        count = min(self.workers, -(-len(rows) // 2))
        size = max(1, min(_TOGETHER, len(rows) // (4 * count)))
        messages = ((kind, list(rows[n : n + size])) for n in range(0, len(rows), size))
        done = 0
        with Pool(count, job, worker=("-m", "vesalius.flows.normalizing.worker")) as pool:
            for _, sent, results in pool.run(messages):
                done += len(sent)
                yield sent, [None] * len(sent) if isinstance(results, Died) else results
                if self.progress is not None:
                    self.progress(stage, done, len(rows))
