# SPDX-License-Identifier: Apache-2.0
"""What `io.dicom` saw while it put a series together, as findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from vesalius.cohorts.quality.findings import finding
from vesalius.results import Finding, Severity


class HasProblems(Protocol):
    """A stack of slices with `problems`: (name, severity, slice or None, message, evidence)."""

    @property
    def problems(self) -> Iterable[tuple[str, Severity, int | None, str, Mapping[str, Any]]]:
        """Return what was seen, in the order of the slices."""


def check_stack(stack: HasProblems) -> list[Finding]:
    """Return a finding for each problem of a stack; the names are those of `FINDINGS`."""
    return [
        finding(name, message, evidence, severity=severity, at_slice=place)
        for name, severity, place, message, evidence in stack.problems
    ]
