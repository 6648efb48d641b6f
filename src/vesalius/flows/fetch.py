# SPDX-License-Identifier: Apache-2.0
"""`vesalius fetch`: bring a public data set from its official address, checked."""

from __future__ import annotations

from pathlib import Path

from vesalius.types import PathLike


def fetch(name: str, *, out: PathLike = ".") -> Path:
    """Download the data set `name` (for example `medmnist:breastmnist`) into the folder `out`.

    The file is checked against its published MD5 before it gets its name. Nothing else in
    Vesalius downloads anything.

    Raises:
        UsageError: unknown name (with the nearest known one).
        UnavailableError: no network; the message says how to place the file by hand.
        CorruptFile: the bytes do not have the published MD5.
    """
    from vesalius.cohorts.datasets import fetch as fetch_dataset

    return fetch_dataset(name, Path(out))
