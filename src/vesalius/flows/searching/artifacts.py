# SPDX-License-Identifier: Apache-2.0
"""Where the runs of a search lie: in its folder, or in an object store that all machines reach.

A machine that does not see the search's folder works in one of its own. It brings the run of a plan
that was begun elsewhere, keeps the run as it is every minute while it trains, and in the end.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vesalius.errors import VesaliusError
from vesalius.flows.searching.preparation import SPLIT
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.tuning.object_store import ObjectStore

_LOG = logging.getLogger(__name__)
WEIGHTS = ("model.safetensors", "trust.safetensors", "networks/*")
_SETTING = "setting"  # name of what every machine needs of the search's folder
_LEFT = ("cache/*", "*.lock", "*.tmp", "*.part")  # of a run: made again from the cohort
_EVERY = 60.0  # seconds between two states of a run that are kept; what a lost machine costs


class Artifacts(Protocol):
    """Where runs lie, as a trial and as the head see it."""

    def here(self, payload: Json) -> Json:
        """Return a trial's payload with the paths of this machine."""

    def mirrored(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        """Have a run's folder as it was left, and keep it when the block ends, or is cut short."""

    def begin(self, search: Path) -> None:
        """Make what trials need of the search's folder reachable."""

    def bring(self, folder: Path, *, weights: bool) -> None:
        """Have a run in the search's folder, with or without its weights."""

    def size(self, folder: Path) -> int:
        """Return the bytes of a run that has weights, 0 of one that has none."""

    def drop_weights(self, folder: Path) -> None:
        """Remove a run's weights."""


@dataclass(frozen=True, slots=True)
class InFolder:
    """Runs in the search's folder, which every machine sees."""

    def here(self, payload: Json) -> Json:
        """See `Artifacts.here`."""
        return payload

    def mirrored(self, folder: Path) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """See `Artifacts.mirrored`."""
        return contextlib.nullcontext()

    def begin(self, search: Path) -> None:
        """See `Artifacts.begin`."""

    def bring(self, folder: Path, *, weights: bool) -> None:
        """See `Artifacts.bring`."""

    def size(self, folder: Path) -> int:
        """See `Artifacts.size`."""
        if not (folder / WEIGHTS[0]).exists():
            return 0
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def drop_weights(self, folder: Path) -> None:
        """See `Artifacts.drop_weights`."""
        _remove_weights(folder)


@dataclass(frozen=True, slots=True)
class InStore:
    """Runs in an object store.

    Attributes:
        store: that every machine reaches.
        name: of the search there.
    """

    store: ObjectStore
    name: str

    def here(self, payload: Json) -> Json:
        """See `Artifacts.here`."""
        own = Path(tempfile.gettempdir()) / f"vesalius-search-{self.name}"
        own.mkdir(mode=0o700, exist_ok=True)
        self.store.get(self._of(_SETTING), own)
        asked = {**payload["asked"], "split": str(own / SPLIT)}
        return {**payload, "search": str(own), "asked": asked}

    @contextlib.contextmanager
    def mirrored(self, folder: Path) -> Iterator[None]:
        """See `Artifacts.mirrored`."""
        self.store.get(self._of(folder.name), folder)
        over = threading.Event()

        def keep_on() -> None:
            while not over.wait(_EVERY):
                try:
                    self.store.put(self._of(folder.name), folder, leave=_LEFT)
                except VesaliusError as error:  # the next time may do; the last one must
                    _LOG.warning("the run could not be kept as it is: %s", error)

        thread = threading.Thread(target=keep_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.store.put(self._of(folder.name), folder, leave=_LEFT)  # again, and for good
        shutil.rmtree(folder)

    def begin(self, search: Path) -> None:
        """See `Artifacts.begin`."""
        with tempfile.TemporaryDirectory() as chosen:
            shutil.copyfile(search / SPLIT, Path(chosen) / SPLIT)
            self.store.put(self._of(_SETTING), Path(chosen))

    def bring(self, folder: Path, *, weights: bool) -> None:
        """See `Artifacts.bring`."""
        wanted = self.store.files(self._of(folder.name))
        light = [path for path in wanted if not _weighs(path)]
        self.store.get(self._of(folder.name), folder, only=("*",) if weights else light)

    def size(self, folder: Path) -> int:
        """See `Artifacts.size`."""
        files = self.store.files(self._of(folder.name))
        if WEIGHTS[0] not in files:
            return 0
        return sum(one["bytes"] for one in files.values())

    def drop_weights(self, folder: Path) -> None:
        """See `Artifacts.drop_weights`."""
        self.store.drop(self._of(folder.name), WEIGHTS)
        _remove_weights(folder)

    def _of(self, name: str) -> str:
        return f"{self.name}/{name}"


def artifacts_of(held: Json | None) -> Artifacts:
    """Return where runs lie.

    Args:
        held: what `storage.json` says, None or without `artifacts` for the search's folder.

    Raises:
        UsageError: the store is not there or not allowed. UnavailableError: it does not answer.
    """
    if held is None or held["artifacts"] is None:
        return InFolder()
    from vesalius.tuning.object_store import ObjectStore

    return InStore(ObjectStore(held["artifacts"], held["endpoint"]), held["name"])


def _weighs(path: str) -> bool:
    return any(path == one or path.startswith(one.removesuffix("*")) for one in WEIGHTS)


def _remove_weights(folder: Path) -> None:
    shutil.rmtree(folder / "networks", ignore_errors=True)
    for name in WEIGHTS[:2]:
        (folder / name).unlink(missing_ok=True)
