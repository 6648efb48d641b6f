# SPDX-License-Identifier: Apache-2.0
"""One series through the ladder: normalize, check, climb where a check fails, certify or refuse.

The rungs of `auto` are z-score; median/MAD, clip, z; the bias field (N4) removed before that; and,
where a reference cohort is known, its histogram imposed before that. Where a slice departs from
its neighbors (a wrong rescale slope) the slices are corrected before every further rung. A rung is
judged by what it was not fitted on; the first one that passes every check makes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization import histograms
from vesalius.normalization.certificate import (
    Certificate,
    Check,
    Rung,
    Verdict,
)
from vesalius.normalization.checks import in_words, judge, refusing
from vesalius.normalization.masks import fitting_mask
from vesalius.normalization.series import Outcome, Series, Settings, refuse_hopeless
from vesalius.normalization.steps import apply_steps, corrected, fitted_method
from vesalius.normalization.units import PhysicalUnit, implausible, physical_unit
from vesalius.types import Array, Json
from vesalius.volume import LabelMap, Volume

AUTO = ("zscore", "mad", "n4+mad", "quantile+mad")
_BIAS_SLICES = 8  # fewer slices hold no field in the third direction
_SLOPE_FINDINGS = ("uneven-slope", "wrong-slope")
_BIAS_FINDING = "strong-bias-field"
_REASONS = {"sd": "spread", "outliers": "spread", "slice-drift": "slice-drift"}


def certify(
    volume: Volume,
    settings: Settings,
    *,
    given: LabelMap | None = None,
    findings: Sequence[str] = (),
    key: str = "",
) -> Outcome:
    """Normalize one series and prove it, or refuse it with the reason; never raises for its data.

    Args:
        volume: `(channel, i, j, k)`; a 2D color image keeps the relation between its channels.
        settings: see there.
        given: a mask to fit in, on the volume's grid, instead of the one of its modality.
        findings: names of what is known to be wrong with the series (see `vesalius check`).
        key: its pseudonymous key.

    Raises:
        UsageError: unknown method, or a mask off the grid.
    """
    unit = physical_unit(volume)
    blank = Certificate(
        key,
        volume.modality,
        unit.name if unit else "",
        Verdict.REFUSED,
        tolerance=settings.tolerance,
    )
    try:
        refuse_hopeless(volume)
        series = Series(volume, fitting_mask(volume, given=given))
        if unit is not None and not settings.rescale_units:
            return _fixed(series, unit, settings, blank, findings)
        return _climb(series, settings, blank, findings)
    except NormalizationRefused as error:
        refused = replace(blank, reason=error.reason, message=str(error))
        return Outcome(refused, None)


def _fixed(
    series: Series,
    unit: PhysicalUnit,
    settings: Settings,
    blank: Certificate,
    findings: Sequence[str],
) -> Outcome:
    """Certify units and range instead of a scale; the values stay as they are."""
    volume = series.volume
    values = series.inside(volume.data, series.mask.data)
    reason = implausible(values, unit)
    uneven = [name for name in findings if name in _SLOPE_FINDINGS or name == "not-hounsfield"]
    checks = [
        Check("unit", None, None, None, not reason, reason or f"values in {unit.name}"),
        Check(
            "slope",
            None,
            None,
            None,
            not uneven,
            f"`vesalius check` found {', '.join(uneven)}" if uneven else "one scale for all slices",
        ),
    ]
    mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    group = settings.reference.groups.get(blank.group) if settings.reference else None
    for name, value in (("mean", mean), ("sd", sd)):
        limits = group.interval(name, 0.999) if group else None
        if limits:
            checks.append(
                Check(f"reference-{name}", value, *limits, limits[0] <= value <= limits[1])
            )
    failed = [check for check in checks if not check.passed]
    notes = [] if unit.stated else ["the file states no unit: it is taken from modality and values"]
    certificate = replace(
        blank,
        verdict=Verdict.REFUSED if failed else Verdict.FIXED,
        reason="units" if failed else "",
        message="; ".join(check.note or check.name for check in failed),
        ladder=(Rung("fixed units", tuple(checks)),),
        mask=series.facts,
        mean=mean,
        sd=sd,
        region_mean=mean,
        region_sd=sd,
        histograms={"before": histograms.record(values)},
        region_shares=histograms.of_unit(values),
        notes=tuple(notes),
    )
    return Outcome(certificate, None if failed else volume)


def _climb(
    series: Series, settings: Settings, blank: Certificate, findings: Sequence[str]
) -> Outcome:
    """Try rung after rung until one passes every check."""
    climbed: list[Rung] = []
    source = series.volume.data
    corrections: list[Json] = []
    best: tuple[tuple[int, int], Certificate, Array] | None = None
    plain = settings.method != "auto"
    names = (
        [settings.method] if plain else [name for name in AUTO if _applies(name, series, settings)]
    )
    for name in names:
        try:
            data, transfers, fresh = apply_steps(name, series, source, settings)
        except NormalizationRefused as error:
            if best is None:
                raise
            climbed.append(_broken(name, corrections, error))  # the rungs before it decide
            continue
        measured, checks = judge(name, source, data, transfers, series, settings, blank)
        if _BIAS_FINDING in findings and not plain and not name.startswith("n4"):
            note = "the scan found a strong bias field, which this rung leaves"
            checks = (*checks, Check("bias-field", None, None, None, False, note))
        climbed.append(Rung(_rung_name(name, corrections), checks))
        failed = [check for check in checks if not check.passed]
        certificate = replace(
            measured,
            ladder=tuple(climbed),
            method=climbed[-1].method,
            transfers=tuple(tuple(t.to_json() for t in channel) for channel in transfers),
            corrections=(*corrections, *fresh),
        )
        rank = len(refusing(checks)), len(failed)
        if best is None or rank < best[0]:
            best = (rank, certificate, data)
        if not failed:
            break
        drifts = any(check.name == "slice-drift" for check in failed)
        if drifts and not plain and not corrections:
            try:
                source, record = corrected("slice-slope", series, source, {})
            except NormalizationRefused as error:
                climbed.append(_broken("slice-slope", (), error))
                break
            corrections.append(record)
            names.append(name)  # the same rung again, on mended slices
    if best is None:
        raise NormalizationRefused("method", "no method applies to this series")
    return _verdict(best[1], best[2], series, tuple(climbed))


def _applies(name: str, series: Series, settings: Settings) -> bool:
    if name.startswith("n4"):
        return series.volume.modality in ("MR", "") and series.volume.shape[2] >= _BIAS_SLICES
    if name.startswith("quantile"):
        return bool(fitted_method("quantile", series, settings))
    return True


def _rung_name(name: str, corrections: Sequence[Json]) -> str:
    return "+".join([*(record["method"] for record in corrections), name])


def _broken(name: str, corrections: Sequence[Json], error: NormalizationRefused) -> Rung:
    """Return a rung that could not be tried."""
    check = Check("refused", None, None, None, False, str(error))
    return Rung(_rung_name(name, corrections), (check,))


def _verdict(
    certificate: Certificate, data: Array, series: Series, climbed: tuple[Rung, ...]
) -> Outcome:
    final = next(rung for rung in climbed if rung.method == certificate.method)
    failed = [check for check in final.checks if not check.passed]
    hard = refusing(final.checks)
    before = series.inside(series.volume.data, series.fit.data)
    certificate = replace(
        certificate,
        ladder=climbed,
        mask=series.facts,
        histograms={
            "before": histograms.record(before),
            "after": histograms.record(series.inside(data, series.fit.data)),
        },
    )
    if hard:
        told = "; ".join(f"{c.name} {c.value:.3g} outside {in_words(c)}" for c in hard)
        return Outcome(
            replace(
                certificate,
                verdict=Verdict.REFUSED,
                reason=_REASONS.get(hard[0].name, "reference"),
                message=f"no rung of the ladder passed: {told}",
            ),
            None,
        )
    notes = [
        c.note if c.value is None else f"{c.name} {c.value:.3g} lies a little outside {in_words(c)}"
        for c in failed
    ]
    verdict = Verdict.PASSED if certificate.method == climbed[0].method else Verdict.ESCALATED
    done = replace(certificate, verdict=verdict, notes=(*certificate.notes, *notes))
    return Outcome(done, series.volume.with_data(data))
