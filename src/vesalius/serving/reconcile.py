# SPDX-License-Identifier: Apache-2.0
"""At the start: what an earlier server left behind is brought in line with the index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import ReadError
from vesalius.serving.attributes import read_attributes
from vesalius.serving.state import State
from vesalius.serving.store import Arrival, insert, path_of

ADOPTED = "recovered"  # the origin of files that were found without a row


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found.

    Attributes:
        unfinished: files that were on their way in, removed; none was acknowledged.
        adopted: whole files without a row, taken into the index.
        removed: files that are not what their name says, or are held twice.
        missing: rows without a file: instances that were acknowledged and are gone.
        damaged: rows whose file has other content (only where all was looked at).
    """

    unfinished: int = 0
    adopted: int = 0
    removed: int = 0
    missing: int = 0
    damaged: int = 0


def reconcile(state: State, *, thorough: bool = False) -> Reconciled:
    """Bring folder and index in line; only the one server of the state may call this.

    Args:
        state: the state.
        thorough: look at all folders, and read every file; otherwise at the last two folders,
            which are the only ones that a killed server can have been writing to.
    """
    connection = state.connection()
    unfinished = [path for path in state.incoming.iterdir() if path.is_file()]
    for path in unfinished:
        path.unlink()
    folders = sorted(path for path in state.instances.iterdir() if path.is_dir())
    adopted = removed = missing = damaged = 0
    for folder in folders if thorough else folders[-2:]:
        query = "SELECT sha256 FROM instances WHERE folder = ?"
        known = {row[0] for row in connection.execute(query, (folder.name,))}
        present = {path.stem for path in folder.iterdir()}
        missing += len(known - present)
        for name in sorted(present - known):
            taken = _adopt(state, folder, name)
            adopted, removed = adopted + taken, removed + (not taken)
        if thorough:
            damaged += sum(
                _digest(path_of(state, folder.name, name)) != name for name in known & present
            )
    if thorough:
        names = {folder.name for folder in folders}
        held = connection.execute("SELECT folder, count(*) FROM instances GROUP BY folder")
        missing += sum(count for name, count in held if name not in names)
    return Reconciled(len(unfinished), adopted, removed, missing, damaged)


def _adopt(state: State, folder: Path, name: str) -> bool:
    """Take a file without a row into the index, or remove it where it is not whole."""
    path = folder / f"{name}.dcm"
    held = "SELECT 1 FROM instances WHERE sha256 = ?"
    if (
        path.is_file()
        and _digest(path) == name
        and not state.connection().execute(held, (name,)).fetchone()
    ):
        try:
            attributes = read_attributes(path)
        except ReadError:
            attributes = None
        if attributes is not None:
            arrival = Arrival(path, name, path.stat().st_size, attributes, ADOPTED)
            with state.transaction() as connection:
                insert(connection, arrival, folder.name, state.clock.now())
            return True
    for leftover in folder.glob(f"{name}*"):
        leftover.unlink()
    return False


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
