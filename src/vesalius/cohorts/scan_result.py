# SPDX-License-Identifier: Apache-2.0
"""ScanResult: what a scan did and found, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from vesalius.cohorts.labels import Joined
from vesalius.types import Json


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan did and found.

    Attributes:
        files: met in the data; `changed` of them were new or changed, `deleted` were gone.
        images, patients: in the cohort now.
        units_read: series, cases and parts of containers that were read in this scan.
        layouts: images by layout recognized in this scan.
        findings: how many of each name, in the cohort now.
        labels: how each table was joined.
        license: of the data, `` when none is stated.
        version: of the cohort.
        seconds: wall time.
        memory_estimate, disk_estimate: bytes, as estimated before the work.
    """

    files: int
    changed: int
    deleted: int
    images: int
    patients: int
    units_read: int
    version: int
    license: str
    seconds: float
    layouts: dict[str, int] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    labels: tuple[Joined, ...] = ()
    memory_estimate: int = 0
    disk_estimate: int = 0

    def to_json(self) -> Json:
        """Return a plain dictionary, examples of unmatched keys left out (patient data)."""
        found = asdict(self)
        for one in found["labels"]:
            del one["examples"]
        return found

    def lines(self) -> list[str]:
        """Return the outcome for the terminal of the person who named the data."""
        same = self.files - self.changed
        lines = [
            f"{self.files:,} files ({self.changed:,} new or changed, {same:,} as before"
            + (f", {self.deleted:,} gone" if self.deleted else "")
            + f") in {self.seconds:.1f} s",
            (
                f"{self.images:,} images of {self.patients:,} patients, version {self.version}, "
                f"license: {self.license or 'none stated'}"
            ),
        ]
        if self.layouts:
            lines.append("layouts: " + _counts(self.layouts))
        for one in self.labels:
            lines.append(
                f"labels {one.source}: by '{one.column}' ({one.kind}), "
                f"{one.matched:,} rows matched, {one.unmatched:,} not; "
                + ", ".join(f"{name} ({kind})" for name, kind in one.types.items())
            )
            if one.contradictions:
                lines.append(f"  {one.contradictions:,} keys bear contradicting values: left empty")
            lines += [f"  {example}" for example in one.examples]
        lines.append("findings: " + (_counts(self.findings) or "none"))
        return lines


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in found.items())


def bytes_in_words(count: int) -> str:
    """Return `3.1 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError
