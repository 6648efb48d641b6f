# SPDX-License-Identifier: Apache-2.0
"""`vesalius normalize`: every series on one scale, each with its certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.flows.normalizing.arguments import plain, validate
from vesalius.flows.normalizing.folder import (
    NORMALIZATION,
    NORMALIZER,
    PAGE,
    check_disk,
    claim,
    place,
    read_record,
)
from vesalius.flows.normalizing.references import (
    compare_all,
    digest,
    earlier,
    keep_quantiles,
    measured,
    refuse_strangers,
    write_reference,
)
from vesalius.flows.normalizing.results import equivalences, file_of, normalizer_of, write_table
from vesalius.flows.normalizing.team import COLUMNS, Team
from vesalius.types import Json, PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.io.limits import Limits
    from vesalius.normalization import Certificate, Normalizer, Settings
    from vesalius.normalization.card import Card
    from vesalius.normalization.equivalence import Equivalence
    from vesalius.normalization.reference import Reference


@dataclass(frozen=True, slots=True)
class Normalization:
    """What a normalization did.

    Attributes:
        out: the folder.
        certificates: one a series, in order of their keys.
        equivalence: site and scanner tests, empty where fewer than two are named.
        normalizer: what to apply to further images; `save` it, or find it in `normalizer.json`.
        report: the page.
        files: key -> path below its root, for the person whose files they are: no file and no
            JSON holds it. Empty where the series were not read (`explain`).
    """

    out: Path
    certificates: tuple[Certificate, ...]
    equivalence: tuple[Equivalence, ...]
    normalizer: Normalizer
    report: Path
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Series by verdict."""
        from vesalius.normalization.certificate import counts

        return counts(self.certificates)

    def to_json(self) -> Json:
        """Return all of it but the histograms, for machines."""
        shown = []
        for certificate in self.certificates:
            record = certificate.to_json()
            for name in ("histograms", "region_shares", "transfers"):
                record.pop(name)
            shown.append(record)
        return {
            "counts": self.counts,
            "certificates": shown,
            "equivalence": [one.to_json() for one in self.equivalence],
            "report": str(self.report),
        }


def normalize(
    data: PathLike | Cohort,
    *,
    to: PathLike,
    method: str = "auto",
    options: Mapping[str, Any] | None = None,
    sd_tolerance: float = 0.05,
    reference: PathLike | None = None,
    where: str | None = None,
    split: PathLike | None = None,
    masks: bool = False,
    rescale_units: bool = False,
    format: str = "auto",  # noqa: A002 - the option's name
    workers: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Normalization:
    """Bring every series on one scale and prove it series by series, or refuse it with the reason.

    Results lie in `to`: each series as `KEY.nii.gz` beside `KEY.certificate.json`, the page
    `normalization.html`, and what it takes to treat further images alike. The same call goes on
    after an interruption.

    Args:
        data: images (any formats, any layout), a cohort, or a cohort's folder.
        to: folder for the results.
        method: `auto` climbs from the z-score upward as the checks demand; or a method of
            `methods()`, or several joined by `+`, one after the other.
        options: parameters of the method by name, for example `{"bias": "n4"}` for `minc`; of
            several joined by `+`, of the first.
        sd_tolerance: what no series' standard deviation may depart from 1, in its fitting mask.
        reference: a cohort, or a folder that `normalize` made with the same method and options,
            to agree with: methods are fitted there too; default these data.
        where: SQL filter on the rows.
        split: a split file; fitting and reference then see its training rows only.
        masks: fit in each image's own mask where it has one.
        rescale_units: also rescale images with a physical unit (CT in HU, PET), which are
            otherwise checked and left as they are.
        format: of the written series: `nifti`, `nrrd`, `metaimage` or `minc2`; `auto` is
            `minc2` for the method `minc`, else `nifti`.
        workers: processes; default one per core.
        limits: what reading one image may take in memory.
        progress: called as `progress(stage, done, total)`.

    Raises:
        UsageError: a wrong argument, or `to` holds another normalization.
        BudgetError: the disk has no room for the results.
        CohortError: the data or the reference cannot serve, or `where` or `split` leave no row.
        RunError: `reference` is a folder without a finished normalization.
    """
    from vesalius.cohorts.splits import Split
    from vesalius.normalization import Settings
    from vesalius.normalization.reference import Reference

    if format == "auto":
        format = "minc2" if method == "minc" else "nifti"  # noqa: A001 - the option's name
    options = validate(method, options or {}, sd_tolerance, format, workers)
    out = Path(to)
    if not next(folder for folder in (out, *out.parents) if folder.exists()).is_dir():
        raise UsageError(f"to ('{out}') must be a folder, or a new one: there is a file")
    settings = Settings(method, options, sd_tolerance, rescale_units)
    agreed = None if reference is None else earlier(Path(reference), settings)
    asked: Json = {
        "format": 1,
        "data": place(data, out),
        "method": method,
        "options": plain(options),
        "sd_tolerance": sd_tolerance,
        "rescale_units": rescale_units,
        "masks": masks,
        "written": format,
        "where": where or "",
        "reference": "" if reference is None else digest(Path(reference)),
        "split": "" if split is None else Split.load(split).digest(),
    }
    claim(out, asked)  # before a scan adds these data to the cohort of others
    cohort = _cohort(data, out, workers, limits, progress)
    view = cohort.filter(where) if where else cohort
    rows = list(view.iter_rows([*COLUMNS]))
    if not rows:
        raise CohortError(f"no row matches where: {where}" if where else "the data hold no image")
    claim(out, {**asked, "cohort": view.digest()})
    check_disk(out, rows)
    team = Team(view, out, format, masks, workers, limits, progress)
    training = _training(rows, split)
    if reference is not None:
        settings = agreed or measured(Path(reference), settings, team)
        known = settings.reference or Reference()
        refuse_strangers(known, rows, Path(reference))
        found = team.certify(rows, settings)
        if method == "auto" and settings.fitted:
            keep_quantiles(out, settings.fitted)  # for who takes this folder for a reference
    else:
        settings = replace(settings, fitted=team.fitted(training, settings))
        found = team.certify(rows, settings)
        found, known = compare_all(found, rows, training, settings, team)
    certificates = tuple(found[row["key"]] for row in rows)
    return _finish(out, certificates, rows, known, settings)


def methods() -> list[Card]:
    """Return what is known of every method: name, formula, source, declared laws."""
    from vesalius.normalization.method import cards

    return cards()


def explain(out: PathLike) -> Normalization:
    """Read the certificates of a folder that `normalize` made and write its page again.

    Raises:
        RunError: not such a folder, or one whose normalization is not finished.
    """
    from vesalius.normalization import Certificate, Normalizer
    from vesalius.normalization.equivalence import Equivalence
    from vesalius.reporting import write_normalization

    folder = Path(out)
    record = read_record(folder)
    if "series" not in record:
        raise RunError(f"the normalization in '{folder}' is not finished: run its command again")
    from vesalius.flows.normalizing.worker import certificate_path

    certificates = tuple(
        Certificate.from_json(read_json(certificate_path(folder, key))) for key in record["series"]
    )
    equivalence = tuple(Equivalence(**one) for one in record["equivalence"])
    page = write_normalization(folder / PAGE, certificates, equivalence, record)
    return Normalization(
        folder, certificates, equivalence, Normalizer.load(folder / NORMALIZER), page
    )


def _cohort(
    data: PathLike | Cohort,
    out: Path,
    workers: int | None,
    limits: Limits | None,
    progress: Progress | None,
) -> Cohort:
    """Return the cohort that `data` is, or that a scan of it into `out/cohort` makes."""
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.cohort import INFO

    if isinstance(data, Cohort):
        return data
    if (Path(data) / INFO).is_file():
        return Cohort.open(data)
    from vesalius.cohorts.scan import scan
    from vesalius.io.limits import DEFAULT_LIMITS

    scan(
        data,
        out / "cohort",
        workers=workers,
        limits=limits or DEFAULT_LIMITS,
        progress=progress,
    )
    return Cohort.open(out / "cohort")


def _training(rows: Sequence[Json], split: PathLike | None) -> list[Json]:
    if split is None:
        return list(rows)
    from vesalius.cohorts.splits import Split

    subsets = Split.load(Path(split)).rows
    training = [row for row in rows if subsets.get(row["key"]) == "train"]
    if not training:
        raise CohortError(
            f"none of the {len(rows)} rows is a training row of '{split}'; give the split of this "
            "cohort, or another --where"
        )
    return training


def _finish(
    out: Path,
    certificates: tuple[Certificate, ...],
    rows: Sequence[Json],
    reference: Reference,
    settings: Settings,
) -> Normalization:
    from vesalius.reporting import write_normalization

    equivalence = equivalences(certificates, rows)
    normalizer = normalizer_of(certificates, settings)
    normalizer.save(out / NORMALIZER)
    write_reference(out, reference, settings)
    write_table(out, certificates, rows)
    record = read_record(out) | {
        "series": [one.key for one in certificates],
        "equivalence": [one.to_json() for one in equivalence],
    }
    page = write_normalization(out / PAGE, certificates, equivalence, record)
    write_json(out / NORMALIZATION, record)
    files = {row["key"]: file_of(row) for row in rows}
    return Normalization(out, certificates, tuple(equivalence), normalizer, page, files)
