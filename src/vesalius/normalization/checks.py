# SPDX-License-Identifier: Apache-2.0
"""The checks of a result: what it promises, and what it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vesalius.normalization import histograms, slices
from vesalius.normalization.card import Law
from vesalius.normalization.certificate import (
    Certificate,
    Check,
    Rung,
)
from vesalius.normalization.distances import of_shares
from vesalius.normalization.intensity.mad import Mad
from vesalius.normalization.method import module_of
from vesalius.normalization.reference import FEWEST, Reference
from vesalius.normalization.series import Series, Settings
from vesalius.normalization.steps import solved
from vesalius.normalization.transfer import Transfer
from vesalius.types import Array

_FAR = 0.5  # KS distance from the reference's histogram that is another kind of image
_REGION = 0.15  # in standard deviations: what the unfitted region may depart without a reference
# Checks that refuse a series wherever they fail; the others do so only far outside.
_HARD = frozenset({"sd", "outliers", "region-ks"})


def judge(
    name: str,
    source: Array,
    data: Array,
    transfers: Sequence[Sequence[Transfer]],
    series: Series,
    settings: Settings,
    blank: Certificate,
) -> tuple[Certificate, tuple[Check, ...]]:
    """Measure one result and hold it against its limits; constant channels do not count."""
    scaled = [channel for channel, curves in zip(data, transfers, strict=True) if curves] or [*data]
    fit = series.inside(scaled, series.fit.data)
    mean, sd = float(fit.mean(dtype=np.float64)), float(fit.std(dtype=np.float64))
    promised = Law.UNIT_SD in module_of(name.split("+")[-1]).CARD.laws
    notes: list[str] = []
    checks: list[Check] = []
    tau = settings.tolerance
    if promised:
        checks.append(Check("sd", sd, 1 - tau, 1 + tau, abs(sd - 1) <= tau))
    else:
        notes.append(f"'{name}' promises no standard deviation: it is {sd:.3f} in the mask")
    if name == "zscore":
        checks.append(_outliers(series, source, transfers, tau))
    certificate = replace(blank, mask=series.facts, mean=mean, sd=sd)
    region = series.inside(scaled, series.check.data)
    if region.size:
        region_mean, region_sd = (
            float(region.mean(dtype=np.float64)),
            float(region.std(dtype=np.float64)),
        )
        shares = histograms.shares(region)
        certificate = replace(
            certificate, region_mean=region_mean, region_sd=region_sd, region_shares=tuple(shares)
        )
        certificate, found = _compare(certificate, settings.reference, promised=promised)
        checks += found
    drift, worst, limit = slices.drift(scaled[0], series.fit.data, sd)
    if drift is not None:
        certificate = replace(certificate, slice_drift=drift, worst_slice=worst)
        checks.append(Check("slice-drift", drift, None, limit, drift <= limit))
    return replace(certificate, notes=tuple(notes)), tuple(checks)


def _outliers(
    series: Series, source: Array, transfers: Sequence[Sequence[Transfer]], tau: float
) -> Check:
    """Return whether outliers make the standard deviation: compare with that of the robust rung."""
    robust = solved(Mad(), source, series.fit.data, series.groups)
    share = 0.0
    for channel, curve in zip(transfers, robust, strict=True):
        if channel and curve is not None:
            share = max(share, 1 - curve.scale / channel[0].scale)  # type: ignore[attr-defined]
    note = "share of the standard deviation that outliers make"
    return Check("outliers", share, None, tau, share <= tau, note)


def _compare(
    certificate: Certificate, reference: Reference | None, *, promised: bool
) -> tuple[Certificate, list[Check]]:
    """Hold the unfitted region against the reference cohort, else against the fitting mask.

    A region of few cubes departs by chance: one standard error is allowed in any case.

    Args:
        certificate: with its mask, means and standard deviations.
        reference: or None.
        promised: whether the method promises a standard deviation of 1.
    """
    chance = 1.0 / float(np.sqrt(max(1.0, certificate.mask["region_cubes"])))
    group = reference.groups.get(certificate.group) if reference else None
    checks, far = [], []
    if group is not None and group.count >= FEWEST:
        ks, kl, _ = of_shares(np.asarray(certificate.region_shares), group.shares())
        certificate = replace(certificate, ks=ks, kl=kl)
        far = [Check("region-ks", ks, None, _FAR, ks <= _FAR)]
    sd = certificate.sd or 1.0
    for name, middle, value in (
        ("mean", certificate.mean or 0.0, certificate.region_mean or 0.0),
        ("sd", sd, certificate.region_sd or 0.0),
    ):
        scale = 1.0 if promised else sd
        reach = max(certificate.tolerance, chance * scale)
        known = group.interval(name) if group else None
        if known is not None:
            middle, reach = (known[0] + known[1]) / 2, max(reach, (known[1] - known[0]) / 2)
        else:
            reach = max(reach, _REGION * scale)
        low, high = middle - reach, middle + reach
        checks.append(Check(f"region-{name}", value, low, high, low <= value <= high))
    return certificate, [*checks, *far]


def compare(certificate: Certificate, reference: Reference) -> Certificate:
    """Return a certificate with its last rung held against a reference cohort.

    What passed without one may fail now: `agrees` tells, and `certify` with the reference in its
    settings climbs on.
    """
    if not certificate.certified or certificate.region_mean is None:
        return certificate
    promised = Law.UNIT_SD in module_of(certificate.method.split("+")[-1]).CARD.laws
    compared, checks = _compare(certificate, reference, promised=promised)
    group = reference.groups.get(certificate.group)
    if group is None or group.interval("mean") is None:
        return compared  # too few series to judge another
    last = next(rung for rung in certificate.ladder if rung.method == certificate.method)
    first = next(n for n, check in enumerate(last.checks) if check.name == "region-mean")
    kept = [check for check in last.checks if not check.name.startswith("region-")]
    judged = Rung(last.method, (*kept[:first], *checks, *kept[first:]))
    ladder = tuple(judged if rung is last else rung for rung in certificate.ladder)
    return replace(compared, ladder=ladder)


def agrees(certificate: Certificate) -> bool:
    """Return whether nothing is left to climb for: every check passed, or none would help."""
    if not certificate.certified:
        return certificate.reason != "reference"
    return any(rung.passed for rung in certificate.ladder if rung.method == certificate.method)


def refusing(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that refuse a series."""
    return [c for c in checks if not c.passed and (c.name in _HARD or not _near(c))]


def _near(check: Check) -> bool:
    """Return whether a value lies within twice its limits; what has none is a remark."""
    if check.value is None:
        return True
    if check.low is None:
        return check.high is not None and check.value <= 2 * check.high
    if check.high is None:
        return False
    middle, reach = (check.low + check.high) / 2, (check.high - check.low) / 2
    return abs(check.value - middle) <= 2 * reach


def in_words(check: Check) -> str:
    """Return the limits of a check as an interval."""
    low = "" if check.low is None else f"{check.low:.3g}"
    high = "" if check.high is None else f"{check.high:.3g}"
    return f"[{low}, {high}]"
