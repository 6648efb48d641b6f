# SPDX-License-Identifier: Apache-2.0
"""scan: a data root becomes a cohort. Walk, parse, plan, read, publish; each step can be killed.

1. walk: `os.scandir` against the index; new and changed files wait, lost ones are forgotten.
2. parse: workers hash each waiting file and read its header.
3. plan: layouts group files into units (a series, a case, a part of a container); a unit whose
   digest is known is not read again.
4. read: workers turn each waiting unit into rows and findings.
5. publish: labels are joined, the whole is checked, Lance tables and `cohort.json` are committed.

Everything is committed to `scan.sqlite` as it is made. The same command after a crash goes on; its
result is that of an uninterrupted scan. Memory does not grow with the number of files.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from vesalius import files
from vesalius.cohorts import labels as tables
from vesalius.cohorts.cohort import FORMAT, INFO
from vesalius.cohorts.index import INDEX, UNREADABLE, Index, to_name
from vesalius.cohorts.labels import Joined, Labels
from vesalius.cohorts.layouts import CODE, Planned, expand, pattern_of, plan
from vesalius.cohorts.license import stated_license
from vesalius.cohorts.parsing import Settings
from vesalius.cohorts.pool import Died, Pool
from vesalius.cohorts.pseudonyms import Pseudonyms, ensure_key
from vesalius.cohorts.scan_result import ScanResult, bytes_in_words
from vesalius.cohorts.walk import Walked, walk
from vesalius.errors import BudgetError, CohortError, UsageError
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.types import Json, PathLike, Progress

__all__ = ["ScanResult", "scan"]

_MOST_WORKERS = 6  # by default: more of them than disks can feed only take memory
_CHUNK = 96  # files a message
_TOGETHER = 16  # units a message, of …
_TOGETHER_BYTES = 8 << 20  # … at most so many bytes
_COMMIT_SECONDS = 1.0
_DISK_PER_FILE = 3000  # bytes in the index and the tables, measured
_WORKER_MEMORY = 90 << 20
_OWN_MEMORY = 250 << 20
_AUTO_JOIN = 0.9  # of a table's keys must name images, for a table that nobody asked to join


def scan(
    data: PathLike,
    out: PathLike,
    *,
    labels: PathLike | None = None,
    pixels: bool = True,
    workers: int | None = None,
    license: str = "",  # noqa: A002  the option's public name
    pseudonym_key: PathLike | None = None,
    patient_pattern: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> ScanResult:
    """Scan a folder (or one file) into the cohort folder `out`, or bring that up to date.

    A further root is added to the cohort; the rows of other roots stay. Tables that an earlier
    scan joined stay joined until `labels` names another. Without `labels`, tables that lie among
    the data are joined when at least nine of ten keys name images.

    Args:
        data: folder of images in any formats and layouts, or a single file.
        out: the cohort folder.
        labels: CSV, TSV, Parquet or JSON table to join, see `cohorts.labels`.
        pixels: also read the pixels: statistics, hashes, findings. Without, only DICOM rows have
            shapes.
        workers: processes, at most 6 by default.
        license: license of the data; else what the data state.
        pseudonym_key: key file to share pseudonyms with another cohort.
        patient_pattern: regular expression searched in each path below `data`; its first group is
            the patient, before all else.
        limits: what reading one file may take in memory.
        progress: called as `progress(stage, done, total)`.

    Raises:
        UsageError: `data` does not exist, or an argument is wrong.
        CohortError: `out` holds something else, another scan of it is running, or `labels` name
            no image.
        BudgetError: the disk has no room for the cohort.
    """
    started = time.monotonic()
    data, out = Path(data).absolute(), Path(out).absolute()
    if not data.exists():
        raise UsageError(f"data must be an existing folder or file, got {data}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}")
    if data == out or out in data.parents:
        raise UsageError(f"out ({out}) must be another folder than data and not around it")
    if labels is not None and not Path(labels).is_file():
        raise UsageError(f"labels must be an existing table, got {labels}")
    pattern = pattern_of(patient_pattern)
    tick: Progress = progress or (lambda _stage, _done, _total: None)
    _prepare(out)
    with _locked(out):
        key = ensure_key(out, pseudonym_key)
        with Index(out) as index:
            job = _Job(index, out, data, key, tick, started)
            settings = {
                "pixels": pixels,
                "limits": asdict(limits),
                "pattern": pattern.pattern if pattern else "",
            }
            wanted = {
                **settings,
                "code": CODE,
                "license": license,
                "labels": tables.digest_of(Path(labels)) if labels else None,
                "root": str(data),
            }
            result = job.unchanged(wanted)
            if result is None:
                result = job.run(
                    wanted,
                    settings,
                    labels=Path(labels) if labels else None,
                    pattern=pattern,
                    workers=workers or min(_MOST_WORKERS, len(os.sched_getaffinity(0))),
                    limits=limits,
                )
    return result


class _Job:
    """One scan, step by step."""

    def __init__(
        self, index: Index, out: Path, data: Path, key: bytes, tick: Progress, started: float
    ) -> None:
        self.index = index
        self.out = out
        self.key = key
        self.pseudonym = Pseudonyms(key)
        self.tick = tick
        self.started = started
        index.begin()
        self.top = data if data.is_dir() else data.parent
        self.number, self.root = index.root(self.top)
        self.generation = (index.get("generation") or 0) + 1
        index.put("generation", self.generation)
        self.walked = walk(
            index,
            self.number,
            self.top,
            generation=self.generation,
            only="" if data.is_dir() else data.name,
            skip=out,
            tick=self._walking,
        )
        self._walking(self.walked)
        index.commit()

    def unchanged(self, wanted: Json) -> ScanResult | None:
        """Return the last result when nothing has changed since, else None."""
        last = self.index.get("finished")
        if not last or last["wanted"] != wanted or self.index.pending() or self.index.waiting()[0]:
            return None
        if not (self.out / INFO).is_file():
            return None
        found = last["result"]
        found["labels"] = tuple(Joined(**one) for one in found["labels"])
        found |= {"files": self.walked.files, "changed": 0, "deleted": 0, "units_read": 0}
        return ScanResult(**{**found, "seconds": self._seconds(), "layouts": {}})

    def run(
        self,
        wanted: Json,
        settings: Json,
        *,
        labels: Path | None,
        pattern: Any,
        workers: int,
        limits: Limits,
    ) -> ScanResult:
        """Do the rest of a scan in which something changed."""
        index = self.index
        index.put("finished", None)
        disk = self._check_disk()
        planned = Planned()
        # The library of the tables takes longer to load than a small scan: load it meanwhile.
        loading = threading.Thread(target=import_module, args=("vesalius.cohorts.publish",))
        loading.start()
        message = Settings(self.key, index.roots(), settings["pixels"], limits)
        with Pool(workers, message) as pool:
            self._parse(pool)
            self._plan(planned, settings, pattern)
            count, weight, largest = index.waiting()
            memory = _OWN_MEMORY + workers * (
                _WORKER_MEMORY + min(limits.allowed(largest), 8 * largest)
            )
            stage = f"read {bytes_in_words(weight)} in up to {bytes_in_words(memory)} of memory"
            self._read(pool, stage, count)
        loading.join()
        joined = self._join(labels)
        info, findings, patients, images = self._publish(joined, wanted)
        result = ScanResult(
            files=self.walked.files,
            changed=self.walked.changed,
            deleted=self.walked.deleted,
            images=images,
            patients=patients,
            units_read=count,
            version=info["versions"][-1]["version"],
            license=info["license"],
            seconds=self._seconds(),
            layouts=dict(planned.layouts),
            findings=dict(sorted(findings.items(), key=lambda item: (-item[1], item[0]))),
            labels=tuple(one.report for one in joined),
            memory_estimate=memory,
            disk_estimate=disk,
        )
        index.begin()
        index.put("finished", {"wanted": wanted, "result": result.to_json()})
        index.settle()
        return result

    def _walking(self, walked: Walked) -> None:
        if walked.changed or walked.deleted:  # never committed apart from what it speaks of
            self.index.put("finished", None)
            self.index.commit()
            self.index.begin()
        self.tick("walk", walked.files, None)

    def _check_disk(self) -> int:
        wanted = _DISK_PER_FILE * self.index.pending()
        free = shutil.disk_usage(self.out).free
        if wanted > free:
            raise BudgetError(
                f"the cohort needs about {bytes_in_words(wanted)} in {self.out}, free are "
                f"{bytes_in_words(free)}: make room or choose another folder"
            )
        return wanted

    def _parse(self, pool: Pool) -> None:
        index, total = self.index, self.index.pending()
        if not total:
            return
        done, committed = 0, time.monotonic()
        index.begin()
        for _, items, results in pool.run(_chunks(index)):
            if isinstance(results, Died):
                results = [_died_parsing(item) for item in items]
            index.parsed(results)
            done += len(items)
            committed = self._commit(committed)
            self.tick("parse", done, total)
        index.commit()

    def _plan(self, planned: Planned, settings: Json, pattern: Any) -> None:
        index = self.index
        self.tick("plan", 0, None)
        index.begin()
        units = plan(
            index,
            self.root,
            pseudonyms=self.pseudonym,
            pattern=pattern,
            settings=settings,
            planned=planned,
        )
        index.plan(self.root, units, self.generation)
        index.drop_unplanned(self.root, self.generation)
        index.stray(self.root, planned.findings, self.generation)
        index.commit()

    def _read(self, pool: Pool, stage: str, total: int) -> None:
        index, done, committed = self.index, 0, time.monotonic()
        index.begin()
        for _, items, results in pool.run(_messages(index)):
            if isinstance(results, Died):
                results = [_died_reading(item) for item in items]
            for unit, rows, found in results:
                index.store(unit, rows, found)
            done += len(items)
            committed = self._commit(committed)
            self.tick(stage, done, total)
        index.commit()

    def _commit(self, last: float) -> float:
        now = time.monotonic()
        if now - last < _COMMIT_SECONDS:
            return last
        self.index.commit()
        self.index.begin()
        return now

    def _join(self, path: Path | None) -> list[Labels]:
        index = self.index
        if path is not None:
            one = tables.join(path, index, index.payloads, self.pseudonym)
            index.put("joined", [])
            return self._remember([one] if one else [], asked=True)
        kept = index.get("joined") or []
        if kept and kept[0]["asked"]:
            again = [
                Labels(index, e["number"], Joined(**e["report"]), e["roles"], self.pseudonym)
                for e in kept
            ]
            for one in again:
                one.recount(index.payloads())
            return self._remember(again, asked=True)
        found: list[Labels] = []
        for root, place in index.roots().items():
            for entry in index.entries(
                "r.name = ? AND f.format = 'table'", (root,), "d.path, f.name"
            ):
                if entry.name.lower().endswith((".csv", ".tsv", ".parquet")):
                    one = tables.join(
                        Path(place, to_name(entry.path)), index, index.payloads, self.pseudonym,
                        number=len(found) + 1, least=_AUTO_JOIN,
                    )  # fmt: skip
                    found += [one] if one else []
        return self._remember(found, asked=False)

    def _remember(self, joined: list[Labels], *, asked: bool) -> list[Labels]:
        entries = []
        for one in joined:
            report = asdict(one.report) | {"examples": []}
            entries.append(
                {"number": one.number, "report": report, "roles": one.roles, "asked": asked}
            )
        self.index.put("joined", entries)
        return joined

    def _publish(self, joined: list[Labels], wanted: Json) -> tuple[Json, dict[str, int], int, int]:
        import lancedb

        from vesalius.cohorts.publish import Publisher
        from vesalius.version import __version__

        publisher = Publisher(self.index, self.out, joined)
        images_version, found_version, targets, counts = publisher.publish(self.tick)
        images, patients = publisher.size()
        path = self.out / INFO
        info: Json = files.read_json(path) if path.exists() else {"versions": []}
        versions = info["versions"]
        tables = {"images_version": images_version, "findings_version": found_version}
        if not versions or not tables.items() <= versions[-1].items():
            versions = [*versions, {
                "version": len(versions) + 1,
                **tables,
                "rows": images,
                "findings": sum(counts.values()),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }]  # fmt: skip
        stated = wanted["license"] or info.get("license_asked") or ""
        info = {
            "format": FORMAT,
            "roots": self.index.roots(),
            "license": stated or stated_license(self.index),
            "license_asked": stated,
            "targets": [name.removeprefix("label_") for name in targets],
            "settings": {"pixels": wanted["pixels"], "limits": wanted["limits"]},
            "labels": [
                {"column": one.report.column, "kind": one.report.kind,
                 "matched": one.report.matched, "unmatched": one.report.unmatched}
                for one in joined
            ],
            "created_by": {
                "vesalius": __version__,
                "lancedb": lancedb.__version__,
                "python": platform.python_version(),
            },
            "versions": versions,
        }  # fmt: skip
        files.write_json(path, info)
        return info, counts, patients, images

    def _seconds(self) -> float:
        return round(time.monotonic() - self.started, 3)


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise CohortError(f"out must be a folder, got the file {out}")
    out.mkdir(parents=True, exist_ok=True)
    names = {name for name in os.listdir(out) if not name.startswith(".")}
    if names and not names & {INDEX, INFO, "pseudonym.key"}:
        raise CohortError(
            f"{out} holds other files and is no cohort: choose a new or empty folder for --out"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the cohort for this process; the lock of a process that died is free."""
    handle = os.open(out / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise CohortError(
                f"another scan (process {owner}) is writing to {out}: wait for its end, or stop it"
            ) from None
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _chunks(index: Index) -> Iterator[tuple[str, list[Any]]]:
    chunk: list[Any] = []
    for item in index.unparsed():
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield "parse", chunk
            chunk = []
    if chunk:
        yield "parse", chunk


def _messages(index: Index) -> Iterator[tuple[str, list[Any]]]:
    together: list[Any] = []
    weight = 0
    for unit, kind, text, size in index.unread():
        if together and (len(together) == _TOGETHER or weight + size > _TOGETHER_BYTES):
            yield "rows", together
            together, weight = [], 0
        together.append((unit, kind, expand(index, kind, text), size))
        weight += size
    if together:
        yield "rows", together


def _died_parsing(item: Any) -> tuple[Any, ...]:
    return None, item[0], UNREADABLE, "", "bad", None, "", json.dumps(_killer())


def _died_reading(item: Any) -> tuple[str, list[Any], list[str]]:
    first = item[2]["files"][0]
    return (
        item[0],
        [],
        [json.dumps(_killer() | {"file": first if isinstance(first, str) else first[0]})],
    )


def _killer() -> Json:
    from vesalius.cohorts.quality.findings import finding

    return asdict(
        finding("unreadable-file", "the process that read it died three times", {"deaths": 3})
    )
