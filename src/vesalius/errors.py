# SPDX-License-Identifier: Apache-2.0
"""Every error that Vesalius raises on purpose, grouped by what the caller would do next.

```
VesaliusError                 exit code 1
├── UsageError                2   an argument is wrong or contradicts another: change the call
├── DataError                 3   the data cannot serve: mend or leave out the data
│   ├── ReadError                 one file or series cannot be read
│   │   ├── UnsupportedFormat     known or unknown format that is refused by name
│   │   ├── CorruptFile           the format is right, the content is broken
│   │   ├── LimitExceeded         reading would take more memory than allowed
│   │   └── GeometryError         slices do not form one regular grid
│   ├── NormalizationRefused      a series that no scale can be given to, with the verdict
│   ├── CohortError               a cohort folder or its labels
│   └── RunError                  a run folder
├── MissingDependency         4   install an extra
├── BudgetError               5   memory, disk or minutes do not suffice: ask for less
└── UnavailableError          6   the network or a server is not there: place the file by hand
```

Interrupted work (Ctrl-C) exits with 130. An exception outside this tree is a defect of Vesalius.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar


class VesaliusError(Exception):
    """Base of all deliberate errors; `str(error)` is a full sentence for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(VesaliusError):
    """An argument is wrong or contradicts another."""

    exit_code = 2


class DataError(VesaliusError):
    """The data cannot serve the request."""

    exit_code = 3


class ReadError(DataError):
    """One file, or the series that it belongs to, cannot be read.

    `finding` is the name under which `scan` records the same fact; `evidence` holds the numbers
    behind it (JSON-serializable, free of patient data).
    """

    finding: ClassVar[str] = "unreadable-file"

    def __init__(self, message: str, *, path: str = "", **evidence: Any) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.reason = message
        self.path = path
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.reason, self.path, self.evidence)


class UnsupportedFormat(ReadError):
    """The format is refused by name: known and unsupported, or not recognized at all."""

    finding = "unsupported-format"


class CorruptFile(ReadError):
    """The file claims a supported format and breaks it."""

    finding = "corrupt-file"


class LimitExceeded(ReadError):
    """The file announces, or decompresses to, more than the reading budget allows."""

    finding = "limit-exceeded"


class GeometryError(ReadError):
    """Slices do not form one regular grid (gap, tilt, mixed orientation, no position)."""

    finding = "irregular-geometry"


class NormalizationRefused(DataError):
    """A series cannot be normalized; `reason` is the certificate's word for why.

    Reasons: `empty`, `constant`, `non-finite`, `empty-mask`, `too-few-voxels`, `blank-tile`,
    `not-covered`, `spread`, `units`, `reference`, `slice-drift`, `method`, `no-mode`; of stains
    `one-stain`; of tables `too-few-rows`, `confounded`; of registration `overlap`, `too-thin`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


class CohortError(DataError):
    """A cohort folder, its labels or its splits cannot serve the request."""


class RunError(DataError):
    """A run folder is missing, incomplete or does not fit the request."""


class MissingDependency(VesaliusError):
    """An optional library is absent; the message holds the exact install line."""

    exit_code = 4


class BudgetError(VesaliusError):
    """Memory, disk or minutes do not suffice for the request."""

    exit_code = 5


class UnavailableError(VesaliusError):
    """The network or a server is not there."""

    exit_code = 6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` (leading space) when `name` resembles a known name, else ``."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def _rebuild(kind: type[ReadError], reason: str, path: str, evidence: dict[str, Any]) -> ReadError:
    return kind(reason, path=path, **evidence)
