# SPDX-License-Identifier: Apache-2.0
"""What lies beside an archive's vectors: its survey, and where its encoder and its cohorts were.

```
survey.json             how alike the archive's own images are
topics.npz              what its words are about
sources/encoder.json    the run that makes its vectors
server.json             where the entries are, if they are on a server and not in this folder
sources/<cohort>.json   a cohort that it was filled from: its key tells a query's own patient
```
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius import files
from vesalius.errors import DataError, RunError, UsageError
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.store.protocol import Archive
    from vesalius.tasks.retrieve.embedder import Embedder
    from vesalius.tasks.retrieve.search_survey import Survey
    from vesalius.tasks.retrieve.search_topics import Topics

CASE = "case"  # of an identity: what is found as a whole; all else in it names the vectors
_SURVEY, _TOPICS, _SOURCES, _ENCODER = "survey.json", "topics.npz", "sources", "encoder"
_SERVER = "server.json"
_AT_ONCE = 1000  # entries held at a time


def make(
    folder: Path, server: str, *, identity: Json, dimension: int, columns: Mapping[str, str]
) -> Archive:
    """Make an archive in a folder, or on a server with what belongs beside it in the folder.

    Raises:
        UsageError: something is there already.
    """
    from vesalius.store.opening import create_archive, is_server

    if server and not is_server(server):
        raise UsageError(
            f"a server's address is postgresql://user@host/database#name, got '{server}'"
        )
    archive = create_archive(
        server or folder, identity=identity, dimension=dimension, columns=columns
    )
    if server:
        files.write_json(folder / _SERVER, {"address": server})
        os.chmod(folder / _SERVER, 0o600)  # it may hold a password
    return archive


def opened(folder: Path, at: int | None = None) -> Archive:
    """Open the archive of a folder, at its newest version or at a given one.

    Raises:
        DataError: no archive, one of another format, or a version that is gone.
    """
    from vesalius.store.opening import open_archive

    if on_server(folder):
        return open_archive(str(files.read_json(folder / _SERVER)["address"]), at)
    return open_archive(folder, at)


def on_server(folder: Path) -> bool:
    """Return whether the entries are on a server."""
    return (folder / _SERVER).exists()


def maker(identity: Json) -> Json:
    """Return of an archive's identity what names the maker of its vectors."""
    return {name: value for name, value in identity.items() if name != CASE}


def remember_encoder(folder: Path, source: str) -> None:
    """Write where the encoder is: a run's folder, or a name."""
    files.write_json(folder / _SOURCES / f"{_ENCODER}.json", _place(folder, source))


def encoder_of(folder: Path) -> str:
    """Return where the encoder is.

    Raises:
        RunError: it is not there any more.
    """
    path = folder / _SOURCES / f"{_ENCODER}.json"
    place = files.read_json(path) if path.exists() else {}
    found = _found(folder, place)
    if found is None:
        where = f" at {place['absolute']} any more" if place else " known"
        raise RunError(
            f"the run that made the archive's vectors is not{where}; say with --encoder where it is"
        )
    return found


def may_know_words(folder: Path, encoder: str) -> bool:
    """Return whether an archive's encoder is a run, which may have learned words; not a name.

    Args:
        folder: of the archive.
        encoder: where it is; `` for where it was.
    """
    return Path(encoder or encoder_of(folder)).exists()


def load_encoder(folder: Path, archive: Archive, encoder: str) -> Embedder:
    """Return the archive's own encoder.

    Args:
        folder: of the archive.
        archive: opened.
        encoder: where it is; `` for where it was.

    Raises:
        RunError: it is gone, or another one than the archive's.
    """
    from vesalius.tasks.retrieve.embedder import Embedder

    embedder = Embedder.load(encoder or encoder_of(folder))
    refuse_other(folder, archive, embedder)
    return embedder


def refuse_other(folder: Path, archive: Archive, embedder: Embedder) -> None:
    """Refuse vectors of two makers in one archive.

    Raises:
        RunError: encoder, normalizer or plan differ; says which.
    """
    held, given = maker(archive.identity), embedder.identity
    other = [name for name in sorted({*held, *given}) if held.get(name) != given.get(name)]
    if other:
        raise RunError(
            f"the archive's vectors were made by another encoder ({', '.join(other)} differ: it "
            f"has {_named(held)}, this one is {_named(given)}), and vectors of two encoders cannot "
            f"be compared; give that one, or make all vectors anew: vesalius index COHORT --out "
            f"{folder} --encoder {embedder.source} --reembed"
        )


def remember_cohort(folder: Path, name: str, cohort: Cohort) -> None:
    """Write where a cohort is that the archive was filled from; readable by its owner alone."""
    path = folder / _SOURCES / f"{name}.json"
    files.write_json(path, _place(folder, str(cohort.path.absolute())))
    os.chmod(path, 0o600)


def cohorts_of(folder: Path) -> Iterator[Path]:
    """Yield the folders of the cohorts that are still where they were."""
    for path in sorted((folder / _SOURCES).glob("*.json")):
        if path.stem != _ENCODER:
            found = _found(folder, files.read_json(path))
            if found is not None:
                yield Path(found)


def cohort_of(folder: Path, name: str) -> Path | None:
    """Return the folder of one cohort; None where it is not known, or gone."""
    path = folder / _SOURCES / f"{name}.json"
    found = _found(folder, files.read_json(path)) if path.exists() else None
    return None if found is None else Path(found)


def write_survey(folder: Path, survey: Survey) -> None:
    """Keep what was found of the archive."""
    files.write_json(folder / _SURVEY, survey.to_json())


def read_survey(folder: Path) -> Survey | None:
    """Return what was kept of the archive; None where nothing was.

    Raises:
        DataError: it is damaged.
    """
    from vesalius.tasks.retrieve.search_survey import Survey

    path = folder / _SURVEY
    if not path.exists():
        return None
    try:
        return Survey.from_json(files.read_json(path))
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path} is damaged; remove it, and `vesalius index` makes it anew"
        ) from error


def learn(folder: Path, archive: Archive, held: Mapping[str, str]) -> None:
    """Learn from an archive how alike its images are and what its words are about, and keep that.

    Args:
        folder: of the archive.
        archive: opened.
        held: key -> patient of all entries.
    """
    from vesalius.tasks.retrieve.search_survey import sample, survey
    from vesalius.tasks.retrieve.search_topics import MOST, Topics

    files.write_json(folder / _SURVEY, survey(archive, held).to_json())
    keys = sample(held, MOST)
    topics = Topics.fit(
        entry.words
        for start in range(0, len(keys), _AT_ONCE)
        for entry in archive.entries(keys[start : start + _AT_ONCE])
    )
    if topics is None:
        (folder / _TOPICS).unlink(missing_ok=True)
    else:
        topics.save(folder / _TOPICS)


def read_topics(folder: Path) -> Topics | None:
    """Return what was learned of the archive's words; None where they were too few."""
    from vesalius.tasks.retrieve.search_topics import Topics

    path = folder / _TOPICS
    return Topics.load(path) if path.exists() else None


def _place(folder: Path, source: str) -> Json:
    """Return a path as it is from the archive and from everywhere; a name as it is."""
    if not Path(source).is_absolute():
        return {"name": source}
    absolute = Path(source).resolve()
    return {
        "relative": os.path.relpath(absolute, folder.resolve()),
        "absolute": str(absolute),
    }


def _found(folder: Path, place: Json) -> str | None:
    if "name" in place:
        return str(place["name"])
    if not place:
        return None
    for path in (folder.resolve() / place["relative"], Path(place["absolute"])):
        if path.exists():
            return str(path)
    return None


def _named(identity: Json) -> str:
    return f"'{identity.get('encoder')}', weights {identity.get('weights')}"
