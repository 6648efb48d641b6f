# SPDX-License-Identifier: Apache-2.0
"""Cohorts: the table of images on disk, how it is made, checked, grouped and split.

`Cohort` opens one; `scan.scan` makes one. Importing this package is cheap, because the workers of
`scan` do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesalius.cohorts.cohort import Cohort

__all__ = ["Cohort"]


def __getattr__(name: str) -> Any:
    if name == "Cohort":
        from vesalius.cohorts.cohort import Cohort

        return Cohort
    raise AttributeError(f"module 'vesalius.cohorts' has no attribute {name!r}")
