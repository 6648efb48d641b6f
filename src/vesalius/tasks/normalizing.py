# SPDX-License-Identifier: Apache-2.0
"""The normalizer of a run: fitted on its training rows, saved with it, covering what they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.errors import DataError, NormalizationRefused, UsageError
from vesalius.normalization import Coverage, Normalizer
from vesalius.normalization.card import Kind
from vesalius.normalization.certificate import group_name
from vesalius.normalization.intensity.window import WindowFit
from vesalius.normalization.masks import fitting_mask
from vesalius.normalization.method import Method, module_of
from vesalius.normalization.series import channel_groups
from vesalius.normalization.units import HU, physical_unit
from vesalius.tasks.cases import Case
from vesalius.tasks.run import Run
from vesalius.types import Array, Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.volume import Volume

DEFAULT = "mad"
_IMAGES = {True: 200, False: 40}  # training images of a modality that are read, if to be fitted
_LOOK = 4  # … where only their unit is asked for; of formats but DICOM it is not stated


def method_name(asked: str) -> str:
    """Return the method that a plan states for what was asked.

    Raises:
        UsageError: unknown, or not one that works on the values of any image.
    """
    name = DEFAULT if asked == "auto" else asked
    if module_of(name).CARD.kind is not Kind.INTENSITY or name == "window":
        raise UsageError(
            f"'{name}' cannot stand in front of a network; choose an intensity method of "
            "`vesalius normalize --list`, or write normalized images with `vesalius normalize`"
        )
    return name


def fitted_normalizer(
    run: Run, cohort: Cohort, train: Sequence[Case], *, labelled: Sequence[int] = ()
) -> Normalizer:
    """Fit on training rows, save, and return; load where the run has saved one before.

    CT in Hounsfield units gets a window; every other group the method of the plan.

    Args:
        run: with its plan written.
        cohort: of the plan.
        train: training cases.
        labelled: values of the masks; windows are fitted on voxels that bear one of them alone.
    """
    path = run.path / "normalizer.json"
    if path.exists():
        return run.normalizer()
    module = module_of(run.decisions["normalization"])
    rows: dict[str, list[Json]] = defaultdict(list)
    for case in train:
        for row in case.rows:
            rows[row["modality"]].append(row)
    fits: dict[str, Any] = {}
    covers: dict[str, Coverage] = {}
    for modality, members in sorted(rows.items()):
        wanted = _IMAGES[bool(module.CARD.fitted)]
        rng = np.random.default_rng(int(run.plan["seed"]))
        chosen = [members[place] for place in rng.permutation(len(members))[:wanted]]
        if not module.CARD.fitted and modality not in ("CT", "PT"):
            chosen = [row for row in chosen if row["format"] == "dicom"][:_LOOK]
        units: set[str] = set()
        for row in chosen:
            try:
                volume = cohort.read(row)
                mask = _labelled(cohort, row, volume, labelled) if labelled else None
                units.add(_take(fits, volume, mask, module))
            except (DataError, NormalizationRefused):
                continue  # named when the images are prepared
        covers[modality] = _coverage(units, members)
    fitted: dict[str, Method] = {group: fit.finish() for group, fit in sorted(fits.items())}
    # A group that nothing could be fitted on is not handed another group's fit.
    method = module_of(DEFAULT if module.CARD.fitted else module.CARD.name).METHOD()
    normalizer = Normalizer(method, fitted, covers)
    normalizer.save(path)
    return normalizer


def _take(fits: dict[str, Any], volume: Volume, mask: Array | None, module: Any) -> str:
    """Hand one training image to the fit of its group; return its physical unit."""
    unit = physical_unit(volume)
    name = unit.name if unit else ""
    group = group_name(volume.modality, name)
    if name == HU:
        inner = fitting_mask(volume).data if mask is None else mask
        fits.setdefault(group, WindowFit()).add(volume.data[0], inner)
    elif module.CARD.fitted:
        inner = fitting_mask(volume).data
        fit = fits.setdefault(group, module.FIT())
        for group_of in channel_groups(volume):  # as they are applied: colors together
            part = volume.data[group_of]
            if len(part) == 1:
                fit.add(part[0], inner)
            else:
                fit.add(part, np.broadcast_to(inner, part.shape))
    return name


def _labelled(cohort: Cohort, row: Json, volume: Volume, values: Sequence[int]) -> Array | None:
    mask = cohort.read_mask(row)
    if mask.shape != volume.shape:
        return None
    found: Array = np.isin(mask.data, values)
    return np.asarray(found.any(axis=0))


def _coverage(units: set[str], rows: Sequence[Json]) -> Coverage:
    """Return the unit, and the range of the rows' 1st to 99th percentiles where it has one."""
    unit = HU if HU in units else next(iter(units), "")
    if len(units) > 1 and unit != HU:
        return Coverage(None)
    if not unit:
        return Coverage()
    low = [row["stat_p01"] for row in rows if row.get("stat_p01") is not None]
    high = [row["stat_p99"] for row in rows if row.get("stat_p99") is not None]
    return Coverage(unit, min(low), max(high)) if low and high else Coverage(unit)
