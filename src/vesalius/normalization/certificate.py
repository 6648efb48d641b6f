# SPDX-License-Identifier: Apache-2.0
"""The certificate of one series: what was done, what was checked, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from vesalius.errors import RunError
from vesalius.types import Json

FORMAT = 1


class Verdict(StrEnum):
    """The last word on a series."""

    PASSED = "passed"
    ESCALATED = "passed after escalation"
    FIXED = "fixed units"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Check:
    """One number with the limits that it was held against.

    Attributes:
        name: `sd`, `outliers`, `region-mean`, `region-sd`, `slice-drift`, `unit`, …
        value: what was measured, or None where a check is of words.
        low, high: limits, None where there is none on that side.
        passed: whether it lies within.
        note: what it means, or why it failed.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    passed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: a method tried, and the checks of its result."""

    method: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Certificate:
    """All that is known of one normalized series; free of patient data but for its statistics.

    Attributes:
        key: pseudonymous key of the series' row.
        modality, unit: as the source states them; `unit` is `` for arbitrary values.
        verdict, reason: `reason` is a word for a refusal (see `errors.NormalizationRefused`).
        message: one sentence for people.
        method: what made the result, `` where nothing was made.
        tolerance: what the standard deviation may depart from 1.
        ladder: the rungs climbed, the last one made the result.
        mask: how the fitting mask was made, the share of the voxels in it and their number.
        mean, sd: of the result in the fitting mask; fixed units: of the values themselves.
        region_mean, region_sd: in the region not used for fitting; None where there is none.
        ks, kl: distances of that region to the reference cohort; None without one.
        slice_drift: largest step of a slice's median from its neighbors', in standard deviations.
        worst_slice: where that was, index along k.
        transfers: the curves of each channel, in the order they were applied.
        corrections: records of bias fields and slice corrections.
        histograms: `before`, `after`: edges and shares in the fitting mask.
        region_shares: histogram of the region for the reference.
        notes: remarks.
        output: file name of the result, ``.
    """

    key: str
    modality: str
    unit: str
    verdict: Verdict
    reason: str = ""
    message: str = ""
    method: str = ""
    tolerance: float = 0.05
    ladder: tuple[Rung, ...] = ()
    mask: Mapping[str, Any] = field(default_factory=dict)
    mean: float | None = None
    sd: float | None = None
    region_mean: float | None = None
    region_sd: float | None = None
    ks: float | None = None
    kl: float | None = None
    slice_drift: float | None = None
    worst_slice: int | None = None
    transfers: tuple[tuple[Json, ...], ...] = ()
    corrections: tuple[Json, ...] = ()
    histograms: Mapping[str, Any] = field(default_factory=dict)
    region_shares: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    output: str = ""

    @property
    def certified(self) -> bool:
        """Whether the promise holds: passed, at once or after escalation."""
        return self.verdict in (Verdict.PASSED, Verdict.ESCALATED)

    @property
    def group(self) -> str:
        """The group of the reference that it is compared with."""
        return group_name(self.modality, self.unit)

    def to_json(self) -> Json:
        """Return the record."""
        return {"format": FORMAT, **asdict(self), "verdict": str(self.verdict)}

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the certificate of a saved record.

        Raises:
            RunError: another format.
        """
        if record.get("format") != FORMAT:
            raise RunError(
                f"the certificate must have format {FORMAT}, got {record.get('format')}; read it "
                "with the version of Vesalius that wrote it"
            )
        held = {name: value for name, value in record.items() if name != "format"}
        held["verdict"] = Verdict(held["verdict"])
        held["ladder"] = tuple(
            Rung(rung["method"], tuple(Check(**check) for check in rung["checks"]))
            for rung in held["ladder"]
        )
        held["transfers"] = tuple(tuple(channel) for channel in held["transfers"])
        for name in ("corrections", "region_shares", "notes"):
            held[name] = tuple(held[name])
        return cls(**held)


def group_name(modality: str, unit: str) -> str:
    """Return the name of a group of comparable series, for example `CT HU` or `MR`."""
    return f"{modality or 'unknown'} {unit}".rstrip()


def counts(certificates: Sequence[Certificate]) -> dict[str, int]:
    """Return how many certificates bear each verdict, all verdicts named."""
    found = dict.fromkeys(map(str, Verdict), 0)
    for certificate in certificates:
        found[str(certificate.verdict)] += 1
    return found
