# SPDX-License-Identifier: Apache-2.0
"""Making the schema of an archive in PostgreSQL, and reading what it says about itself."""

from __future__ import annotations

import json

from vesalius.errors import DataError, UnavailableError, UsageError
from vesalius.optional import require
from vesalius.store import postgres_tables as tables
from vesalius.store.postgres_connection import PURPOSE, Connection, composed
from vesalius.store.words import RULES
from vesalius.types import Json

FORMAT = 1


def make(url: str, name: str, about: Json) -> None:
    """Make the schema of an archive, all of it or nothing.

    Raises:
        UsageError: the schema is there already.
        UnavailableError: the server does not answer, or lacks pgvector.
    """
    psycopg = require("psycopg", PURPOSE)
    dimension, columns = about["dimension"], about["columns"]
    connection = Connection(url, name)
    try:
        with connection.transaction() as cursor:
            if dimension:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            cursor.execute(composed('CREATE SCHEMA "{name}"', name=name))
            cursor.execute(composed(tables.ENTRIES, others=tables.others(dimension, columns)))
            cursor.execute(tables.OTHERS)
            cursor.execute("INSERT INTO about VALUES (%s)", [json.dumps(about)])
    except psycopg.errors.DuplicateSchema as error:
        raise UsageError(
            f"the database has a schema '{name}' already: open it, or name another"
        ) from error
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise UnavailableError(
            "the server has no pgvector: install its package for the server's version "
            "(Debian: postgresql-N-pgvector)"
        ) from error
    finally:
        connection.close()


def read_about(connection: Connection, name: str) -> Json:
    """Return what an archive says about itself.

    Raises:
        DataError: no archive, or one that another version of this package made.
    """
    psycopg = require("psycopg", PURPOSE)
    try:
        with connection.transaction(reading=True) as cursor:
            cursor.execute("SELECT about FROM about")
            found: Json = cursor.fetchone()[0]
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise DataError(
            f"the database has no archive '{name}': make one, or name another"
        ) from error
    if found.get("format") != FORMAT or found.get("words") != RULES:
        raise DataError(
            f"the archive '{name}' was made by another version of Vesalius: index again, or use "
            "that version"
        )
    return found
