# SPDX-License-Identifier: Apache-2.0
"""A worker process of `vesalius normalize`: reads a series, certifies it, writes both.

Run as `python -m vesalius.flows.normalizing.worker FD` by `cohorts.pool`. A certificate is written
after its series, so that whoever finds one finds the other whole.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vesalius import io
from vesalius.cohorts import Cohort
from vesalius.cohorts.worker import serve
from vesalius.errors import DataError, GeometryError
from vesalius.files import write_json
from vesalius.geometry import same_grid
from vesalius.io.limits import Limits
from vesalius.normalization import Certificate, Settings, Verdict, certify
from vesalius.normalization.method import module_of
from vesalius.normalization.series import channel_groups
from vesalius.types import Json
from vesalius.volume import LabelMap, Volume

# format -> suffix of a written series
SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "metaimage": ".mha", "minc2": ".mnc"}


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is told once.

    Attributes:
        cohort: the cohort (or a view of it) that rows belong to.
        settings: of the normalization.
        out: folder of the results, or None where certificates alone are wanted.
        format: of the written series, a key of `SUFFIXES`.
        masks: whether a row's own mask is the fitting mask.
        limits: what reading one image may take.
    """

    cohort: Cohort
    settings: Settings
    out: Path | None
    format: str
    masks: bool
    limits: Limits | None


def answer(kind: str, rows: list[Json], job: Job) -> list[Any] | Exception:
    """Return certificate records (`certify`), or one fit of all rows by group (`fit`)."""
    try:
        if kind == "fit":
            return [_fitted(rows, job)] * len(rows)
        return [_certified(row, job).to_json() for row in rows]
    except Exception as error:  # a defect of ours: the flow raises it where a person sees it
        return error


def certificate_path(out: Path, key: str) -> Path:
    """Return where the certificate of a row lies: beside its series."""
    return out / f"{key}.certificate.json"


def _certified(row: Json, job: Job) -> Certificate:
    try:
        volume, mask = _read(row, job)
    except DataError as error:
        reason = getattr(error, "finding", "unreadable")
        told = getattr(error, "reason", str(error))
        certificate = Certificate(row["key"], row["modality"], "", Verdict.REFUSED, reason, told)
    else:
        outcome = certify(
            volume, job.settings, given=mask, findings=row["findings"], key=row["key"]
        )
        certificate = outcome.certificate
        if job.out is not None:
            name = row["key"] + SUFFIXES[job.format]
            if outcome.volume is None:
                (job.out / name).unlink(missing_ok=True)  # of a pass before, that certified it
            else:
                io.write(outcome.volume, job.out / name, format=job.format)
                certificate = replace(certificate, output=name)
    if job.out is not None:
        write_json(certificate_path(job.out, row["key"]), certificate.to_json())
    return certificate


def _read(row: Json, job: Job) -> tuple[Volume, LabelMap | None]:
    """Return the series of a row and, where asked for, its own mask."""
    volume = job.cohort.read(row, limits=job.limits)
    if not (job.masks and row["mask_files"]):
        return volume, None
    mask = job.cohort.read_mask(row, limits=job.limits)
    if not same_grid(volume.affine, volume.shape, mask.affine, mask.shape):
        raise GeometryError(
            f"its mask ({mask.shape} voxels) does not lie on the grid of the series "
            f"({volume.shape}); resample it, or leave out --masks"
        )
    return volume, mask


def _fitted(rows: list[Json], job: Job) -> dict[str, Any]:
    """Return group -> what the method's fit gathered from these rows."""
    from vesalius.errors import NormalizationRefused
    from vesalius.normalization.card import Kind
    from vesalius.normalization.certificate import group_name
    from vesalius.normalization.masks import fitting_mask
    from vesalius.normalization.units import physical_unit

    module = module_of(job.settings.method.split("+")[0])
    found: dict[str, Any] = {}
    for row in rows:
        try:
            volume, given = _read(row, job)
            if physical_unit(volume) is not None and not job.settings.rescale_units:
                continue
            mask = fitting_mask(volume, given=given).data
            one = module.FIT(**job.settings.options)
            if module.CARD.kind is Kind.STAIN:
                if not volume.is_2d or len(volume.data) < 3:
                    continue  # no color
                one.add(volume.data[:3, :, :, 0], mask[:, :, 0])
            else:
                for channels in channel_groups(volume):
                    part = volume.data[channels]
                    if len(part) == 1:
                        one.add(part[0], mask)
                    else:  # red, green and blue share a curve
                        one.add(part, np.broadcast_to(mask, part.shape))
        except (DataError, NormalizationRefused):
            continue  # its certificate says why
        unit = physical_unit(volume)
        group = group_name(volume.modality, unit.name if unit else "")
        if group in found:
            found[group].merge(one)
        else:
            found[group] = one
    return found


if __name__ == "__main__":
    serve(int(sys.argv[1]), answer)
