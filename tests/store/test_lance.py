# SPDX-License-Identifier: Apache-2.0
"""The LanceDB archive keeps what the protocol promises, with its index and without it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from vesalius.store import cells, conformance, lance, parts
from vesalius.store.conformance import Check, Engine
from vesalius.store.protocol import Entry


def engine_in(folder: Path) -> Engine:
    """Return the engine with its archives in a folder."""
    numbers = itertools.count()
    return Engine(
        create=lambda **given: lance.create_archive(folder / f"archive-{next(numbers)}", **given),
        reopen=lambda archive, version: lance.open_archive(archive.path, version),
    )


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, tmp_path: Path) -> None:
    check(engine_in(tmp_path))


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conforms_when_indexed(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written is indexed at once, and queries look at every cell."""
    plain = lance.LanceArchive.upsert

    def upsert(self: lance.LanceArchive, entries: Iterable[Entry]) -> int:
        before = self.version
        return before if plain(self, entries) == before else self.compact()

    monkeypatch.setattr(lance.LanceArchive, "upsert", upsert)
    monkeypatch.setattr(lance, "INDEXED_FROM", 1)
    monkeypatch.setattr(parts, "GATHERED", 0)
    monkeypatch.setattr(cells.Cells, "number", lambda self, _: len(self.centroids))
    check(engine_in(tmp_path))
