# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL archive keeps what the protocol promises, with its index and without it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vesalius.errors import DataError, UnavailableError, UsageError
from vesalius.store import conformance, postgres_queries
from vesalius.store.conformance import Check, Engine
from vesalius.store.conformance.engine import COLUMNS, DIMENSION, some, vector_of
from vesalius.store.protocol import Entry, Filter

_NUMBERS = itertools.count()


@pytest.fixture
def engine(postgres: str) -> Iterator[Engine]:
    from vesalius.store.postgres import PostgresArchive, create_archive, open_archive

    opened: list[PostgresArchive] = []

    def create(**given: object) -> PostgresArchive:
        opened.append(create_archive(postgres, name=f"archive_{next(_NUMBERS)}", **given))
        return opened[-1]

    def reopen(archive: PostgresArchive, version: int | None) -> PostgresArchive:
        opened.append(open_archive(postgres, version, name=archive.name))
        return opened[-1]

    yield Engine(create=create, reopen=reopen)
    for archive in opened:
        archive.close()


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, engine: Engine) -> None:
    check(engine)


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conforms_when_indexed(
    check: Check, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written is indexed at once, and queries go through the index."""
    from vesalius.store import postgres as module

    plain = module.PostgresArchive.upsert

    def upsert(self: module.PostgresArchive, entries: Iterable[Entry]) -> int:
        version = plain(self, entries)
        self.compact()
        return version

    monkeypatch.setattr(module, "INDEXED_FROM", 1)
    monkeypatch.setattr(postgres_queries, "GATHERED", 0)
    monkeypatch.setattr(module.PostgresArchive, "upsert", upsert)
    check(engine)


def test_index_is_used_and_filters_never_shorten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vesalius.store import postgres as module

    monkeypatch.setattr(module, "INDEXED_FROM", 1)
    monkeypatch.setattr(postgres_queries, "GATHERED", 10)
    archive = engine.create(identity={}, dimension=DIMENSION, columns=COLUMNS)
    archive.upsert(some(3000))
    queries = np.stack([vector_of(entry) for entry in some(20)[:6]])
    given = [Filter(), Filter(where="modality = 'MR'"), Filter(where="age = 7")]
    exact = [archive.nearest(queries, 10, one) for one in given]
    assert archive.condition().exact
    assert archive.condition().unindexed == 3000
    archive.compact()
    assert not archive.condition().exact
    assert archive.condition().unindexed == 0
    for one, wanted in zip(given, exact, strict=True):
        found = archive.nearest(queries, 10, one)
        assert all(len(near.keys) == 10 for near in found)
        shared = [len(set(a.keys) & set(b.keys)) / 10 for a, b in zip(found, wanted, strict=True)]
        assert np.mean(shared) >= 0.97


def test_no_row_of_an_erased_patient_is_left_in_the_tables(engine: Engine, postgres: str) -> None:
    import psycopg.sql

    archive = engine.create(identity={}, dimension=DIMENSION, columns=COLUMNS)
    archive.upsert(some(20))
    archive.upsert([Entry("Qkey", "Qcase", "Qpatient", None, "Qwords7731", {"modality": "Qfact"})])
    archive.upsert([Entry("Qkey", "Qcase", "Qpatient", None, "Qwords7732")])
    archive.erase_patients(["Qpatient"])
    with psycopg.connect(postgres) as connection:
        for table in ("entries", "postings", "versions", "about"):
            name = psycopg.sql.Identifier(archive.name, table)
            rows = connection.execute(psycopg.sql.SQL("SELECT t::text FROM {} t").format(name))
            assert not [row for (row,) in rows if "Q" in row or "qwords" in row]


def test_what_is_no_archive(postgres: str) -> None:
    from vesalius.store.postgres import create_archive, open_archive

    with pytest.raises(DataError, match="no archive"):
        open_archive(postgres, name="absent")
    with pytest.raises(DataError, match="no archive"):
        open_archive(postgres, name='x"; DROP')
    with pytest.raises(UsageError, match="cannot name"):
        create_archive(postgres, name="Bad name", identity={}, dimension=4, columns={})
    create_archive(postgres, name="once", identity={}, dimension=4, columns={}).close()
    with pytest.raises(UsageError, match="already"):
        create_archive(postgres, name="once", identity={}, dimension=4, columns={})
    with pytest.raises(UnavailableError, match="server"):
        open_archive("postgresql://nobody@/none?host=/nonexistent")


def test_addresses_say_which_engine(postgres: str, tmp_path: Path) -> None:
    from vesalius.store import lance, opening
    from vesalius.store import postgres as module

    for address, kind in (
        (f"{postgres}#by_address", module.PostgresArchive),
        (tmp_path / "archive", lance.LanceArchive),
    ):
        made = opening.create_archive(address, identity={"e": 1}, dimension=4, columns={})
        version = made.upsert([Entry("a", "c", "p", None, "mass")])
        for opened in (opening.open_archive(address), opening.open_archive(address, version)):
            assert isinstance(opened, kind)
            assert [hit.key for hit in opened.worded("mass", 5)] == ["a"]
