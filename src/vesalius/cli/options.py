# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several verbs take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vesalius.cli import terminal

if TYPE_CHECKING:
    from vesalius.io.limits import Limits


class SplitName(StrEnum):
    """The subset whose scores are meant."""

    train = "train"
    val = "val"
    test = "test"


Cohort = Annotated[Path, typer.Argument(help="Cohort folder that `scan` made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
MaxMemory = Annotated[
    str, typer.Option("--max-image-memory", help="What reading one image may take, e.g. 4GB.")
]


def image_limits(max_image_memory: str) -> Limits:
    """Return the limits of reading one image that `--max-image-memory` asks for.

    Raises:
        UsageError: the text is no size.
    """
    from vesalius.io.limits import DEFAULT_LIMITS, Limits

    if not max_image_memory:
        return DEFAULT_LIMITS
    return Limits(floor=terminal.byte_count(max_image_memory))
