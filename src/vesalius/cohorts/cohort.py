# SPDX-License-Identifier: Apache-2.0
"""Cohort: the table of images on disk, opened lazily at one version, and views of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius import files
from vesalius.cohorts.schema import FINDINGS, IMAGES, LABEL
from vesalius.errors import CohortError, UsageError, did_you_mean
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from vesalius.io.limits import Limits
    from vesalius.volume import LabelMap, Volume

INFO = "cohort.json"
FORMAT = 1
_WORD = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|[A-Za-z_][A-Za-z0-9_]*|\(|\S")


@dataclass(frozen=True, slots=True)
class Version:
    """One finished scan that changed something: the tables' own versions and what they hold."""

    version: int  # 1, 2, …
    images_version: int
    findings_version: int
    rows: int
    findings: int
    created: str  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class Cohort:
    """A cohort folder at one version, or a filtered view of it. Opening reads no rows.

    Attributes:
        path: the folder.
        version: 1 for the first scan, one more for each that changed something.
        where: the filter of this view in SQL, or `` for all rows.
    """

    path: Path
    version: int
    where: str = ""
    _info: Json = None  # type: ignore[assignment]  # set by `open`, never absent
    _tables: dict[str, Any] = None  # type: ignore[assignment]  # shared by all views

    @classmethod
    def open(cls, path: PathLike, version: int | None = None) -> Cohort:
        """Open the cohort in folder `path`, by default at its newest finished version.

        Raises:
            CohortError: not a cohort, a scan that never finished, or an unknown version.
        """
        folder = Path(path)
        info = _read_info(folder)
        cohort = cls(folder, info["versions"][-1]["version"], "", info, {})
        return cohort if version is None else cohort.at(version)

    @property
    def license(self) -> str:
        """License of the data as stated, or `` where none is."""
        return str(self._info["license"])

    @property
    def roots(self) -> dict[str, Path]:
        """Where the data lie: the short name in the column `root` -> folder. Patient data."""
        return {name: Path(folder) for name, folder in self._info["roots"].items()}

    @property
    def targets(self) -> list[str]:
        """Names of the joined labels; the column is `label_<name>`."""
        return [name.removeprefix(LABEL) for name in self.columns if name.startswith(LABEL)]

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._table(IMAGES).schema.names)

    def versions(self) -> list[Version]:
        """Return the versions that can be opened, oldest first; each is a finished scan."""
        return [Version(**entry) for entry in self._info["versions"]]

    def at(self, version: int) -> Cohort:
        """Return the same view of another version."""
        known = [entry["version"] for entry in self._info["versions"]]
        if version not in known:
            raise CohortError(
                f"{self.path} has no version {version}; it has {', '.join(map(str, known))}"
            )
        return replace(self, version=version, _tables={})

    def filter(self, where: str) -> Cohort:
        """Return the rows that also fulfil `where`, an SQL condition; nothing is read yet.

        >>> cohort.filter("modality = 'CT' and label_diagnosis = 'tumor'")  # doctest: +SKIP

        Raises:
            UsageError: an unknown column (with a suggestion), or a condition that is not SQL.
        """
        self._check_names(where)
        joined = f"({self.where}) AND ({where})" if self.where else where
        try:
            self._table(IMAGES).search().where(joined).limit(1).select(["key"]).to_arrow()
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"the filter {where!r} is not understood: {_first(error)}") from error
        return replace(self, where=joined)

    def __len__(self) -> int:
        return int(self._table(IMAGES).count_rows(self.where or None))

    def keys(self) -> list[str]:
        """Return the keys of all rows, sorted."""
        keys: list[str] = self.to_arrow(columns=["key"])["key"].to_pylist()
        return keys

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows as an Arrow table, sorted by key."""
        chosen = self._chosen(columns)
        table = self._query([*chosen, "key"]).to_arrow()
        return table.sort_by("key").select(chosen)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the rows as a pandas frame, sorted by key."""
        return self.to_arrow(columns).to_pandas()

    def to_polars(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows as a polars frame, sorted by key; needs the extra `polars`."""
        from vesalius.optional import require

        return require("polars", "Cohort.to_polars").from_arrow(self.to_arrow(columns))

    def iter_rows(
        self, columns: Sequence[str] | None = None, *, batch_size: int = 1024
    ) -> Iterator[Json]:
        """Yield the rows as dictionaries, sorted by key, holding one batch at a time."""
        query = self._query(self._chosen(columns))
        if "key" in (columns or ["key"]):
            query = query.order_by([{"column_name": "key"}])
        for batch in query.to_batches(batch_size):
            yield from batch.to_pylist()

    def row(self, key: str) -> Json:
        """Return one row by its key."""
        found = self._query(None, where=f"key = '{_quoted(key)}'").to_arrow().to_pylist()
        if not found:
            raise CohortError(f"{self.path} has no image {key!r} at version {self.version}")
        row: Json = found[0]
        return row

    def findings(self) -> pd.DataFrame:
        """Return the findings of this view's rows; for the whole cohort, those of files as well.

        Columns: key, name, severity, message, evidence (JSON), root, file (patient data), slice.
        """
        table = self._findings()
        if self.where:
            import pyarrow as pa
            import pyarrow.compute as pc

            table = table.filter(
                pc.is_in(table["key"], value_set=pa.array(self.keys(), pa.string()))
            )
        return table.to_pandas()

    def read(self, row: Mapping[str, Any], *, limits: Limits | None = None) -> Volume:
        """Read the image of a row (it needs root, files, format, member).

        Where the file names no modality, the image bears the row's, if the row holds one.
        Raises what `vesalius.io.read` raises.
        """
        from vesalius.cohorts.reading import read_image

        volume = read_image(self._paths(row, "files"), row["format"], row["member"], limits)
        return volume if volume.modality else replace(volume, modality=row.get("modality") or "")

    def read_mask(self, row: Mapping[str, Any], *, limits: Limits | None = None) -> LabelMap:
        """Read the mask of a row (it needs mask_files, mask_format, mask_member, mask_names too).

        Where the image or the mask is DICOM, a mask that lies on a part of the image's lattice
        (a SEG of some slices), or is stored turned, is laid out on the image's grid. Else, and
        where the lattices differ, it is returned as it is.

        Raises:
            CohortError: the row has no mask.
        """
        from vesalius.cohorts.reading import read_mask

        if not row["mask_files"]:
            raise CohortError(f"the image {row.get('key', '')} has no mask")
        on_grid = "dicom" in (row["format"], row["mask_format"])
        names = {int(k): v for k, v in json.loads(row.get("mask_names") or "{}").items()}
        return read_mask(
            self._paths(row, "mask_files"),
            row.get("mask_member") or "",
            (lambda: self.read(row, limits=limits)) if on_grid else None,
            names,
            limits,
        )

    def digest(self) -> str:
        """Return a hash of all rows and findings, whatever their order: 32 hex digits."""
        total = 0
        for row in self.iter_rows(batch_size=256):
            total += _hash(row)
        for finding in self._findings().to_pylist() if not self.where else ():
            total += _hash(finding)
        return f"{total % (1 << 128):032x}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.version, self.where)

    def __repr__(self) -> str:
        view = f", where {self.where}" if self.where else ""
        return f"Cohort({str(self.path)!r}, version {self.version}{view})"

    def _table(self, name: str) -> Any:
        if name not in self._tables:
            import lancedb

            entry = next(e for e in self._info["versions"] if e["version"] == self.version)
            try:
                table = lancedb.connect(self.path).open_table(name)
                table.checkout(entry["images_version" if name == IMAGES else "findings_version"])
            except (ValueError, OSError, RuntimeError) as error:
                raise CohortError(
                    f"the table '{name}' of {self.path} cannot be opened: {_first(error)}; "
                    "run the scan again to restore it"
                ) from error
            self._tables[name] = table
        return self._tables[name]

    def _findings(self) -> pa.Table:
        order = [("key", "ascending"), ("name", "ascending"), ("file", "ascending")]
        return self._table(FINDINGS).search().to_arrow().sort_by(order)

    def _query(self, columns: list[str] | None, where: str = "") -> Any:
        query = self._table(IMAGES).search()
        parts = [part for part in (self.where, where) if part]
        if parts:
            query = query.where(" AND ".join(f"({part})" for part in parts))
        return query.select(list(dict.fromkeys(columns))) if columns else query

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        known = self.columns
        for name in columns or ():
            if name not in known:
                raise UsageError(
                    f"the cohort has no column '{name}'.{did_you_mean(name, known)} "
                    f"It has: {', '.join(known)}"
                )
        return list(columns) if columns is not None else known

    def _check_names(self, where: str) -> None:
        """Suggest the right name for an unknown column, before the engine refuses it."""
        words = _WORD.findall(where)
        known = self.columns
        for word, following in zip(words, [*words[1:], ""], strict=True):
            plain = word.strip('`"')
            if (
                re.fullmatch(r"[A-Za-z_]\w*", plain)
                and following != "("
                and plain not in known
                and plain.lower() not in _SQL
            ):
                raise UsageError(
                    f"the filter names an unknown column '{plain}'.{did_you_mean(plain, known)} "
                    f"Columns: {', '.join(known)} (text goes in single quotes)"
                )

    def _paths(self, row: Mapping[str, Any], column: str) -> list[Path]:
        try:
            root = self.roots[row["root"]]
        except KeyError:
            raise CohortError(f"{self.path} knows no data root '{row['root']}'") from None
        found = []
        for name in row[column]:
            if os.path.isabs(name) or ".." in name.split("/"):
                raise CohortError(f"the image {row.get('key', '')} names a file outside its root")
            found.append(root / _restored(name))
        if not root.exists():
            raise CohortError(
                f"the data of {self.path} are not at {root} any more; scan them again from where "
                "they are, into the same cohort"
            )
        return found


# Words of a filter that are no columns.
_SQL = frozenset({
    "and", "or", "not", "in", "is", "null", "like", "ilike", "between", "true", "false", "case",
    "when", "then", "else", "end", "cast", "as", "escape", "date", "timestamp", "interval",
    "array", "regexp", "string", "int", "bigint", "double", "float", "boolean", "varchar", "text",
    "similar", "to", "exists", "any", "all", "from", "distinct",
})  # fmt: skip


def _reopened(path: Path, version: int, where: str) -> Cohort:
    """Return the same view in another process."""
    return replace(Cohort.open(path, version), where=where)


def _read_info(folder: Path) -> Json:
    path = folder / INFO
    if not path.is_file():
        unfinished = (folder / "scan.sqlite").exists()
        raise CohortError(
            f"{folder} holds an unfinished scan: run the same scan command again"
            if unfinished
            else f"{folder} is no cohort ({INFO} is absent): make one with `vesalius scan DATA "
            f"--out {folder}`"
        )
    try:
        info: Json = files.read_json(path)
    except ValueError as error:
        raise CohortError(f"{path} is damaged ({error}): run the scan again") from error
    if info.get("format") != FORMAT:
        raise CohortError(
            f"{path} has format {info.get('format')!r}, this version reads {FORMAT}: use the "
            "version of Vesalius that made it, or scan again into a new folder"
        )
    return info


def _hash(row: Json) -> int:
    text = json.dumps(row, sort_keys=True, default=bytes.hex, ensure_ascii=False)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest, "big")


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _first(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]


def _restored(name: str) -> str:
    from vesalius.cohorts.index import to_name

    return to_name(name)
