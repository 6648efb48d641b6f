# SPDX-License-Identifier: Apache-2.0
"""What series are held against: the whole they make, or an earlier folder or cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.flows.normalizing.arguments import needs_fit, plain
from vesalius.flows.normalizing.folder import NORMALIZER, QUANTILE, REFERENCE, read_record
from vesalius.flows.normalizing.team import COLUMNS, Team
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.normalization import Certificate, Settings
    from vesalius.normalization.reference import Reference


def digest(path: Path) -> str:
    """Return a hash of a cohort, or of the reference in a normalized folder."""
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.cohort import INFO

    if (path / INFO).is_file():
        return Cohort.open(path).digest()
    read_record(path)
    try:
        return sha256((path / REFERENCE).read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"the normalization in '{path}' is not finished: run it again") from error


def earlier(folder: Path, settings: Settings) -> Settings | None:
    """Return settings with reference and fits of a normalized folder; None for a cohort.

    Raises:
        UsageError: the folder was made with another method or other options.
        RunError: it is not finished, or it holds no fit and the method needs one.
    """
    from vesalius.cohorts.cohort import INFO
    from vesalius.normalization import Normalizer

    if (folder / INFO).is_file():
        return None
    if "series" not in read_record(folder) or not (folder / REFERENCE).exists():
        raise RunError(f"the normalization in '{folder}' is not finished: run it again")
    made, reference = _read_reference(folder)
    asked = _made_with(settings)
    if (made["method"], made["options"]) != (asked["method"], asked["options"]):
        raise UsageError(
            f"'{folder}' was made with {_told(made)}, this call asks for {_told(asked)}: results "
            "of two methods cannot agree; ask for the same, or normalize the reference again"
        )
    if settings.method == "auto":
        return replace(settings, reference=reference, fitted=_kept_quantiles(folder) or {})
    fitted = {}
    if needs_fit(settings.method):
        step = settings.method.split("+")[0]
        kept = Normalizer.load(folder / NORMALIZER).fitted
        fitted = {group: method for group, method in kept.items() if method.card.name == step}
        if not fitted:
            raise RunError(
                f"'{folder}' holds no fit of '{step}' to go by ({NORMALIZER}): normalize it again"
            )
    return replace(settings, reference=reference, fitted=fitted)


def measured(folder: Path, settings: Settings, team: Team) -> Settings:
    """Return settings with the reference and the fits of a cohort, which is read now."""
    from vesalius.cohorts import Cohort

    other = Cohort.open(folder)
    measuring = Team(other, None, "nifti", team.masks, team.workers, team.limits, team.progress)
    rows = list(other.iter_rows([*COLUMNS]))
    settings = replace(settings, fitted=measuring.fitted(rows, settings))
    return replace(settings, reference=_of(measuring.certify(rows, settings).values()))


def refuse_strangers(reference: Reference, rows: Sequence[Json], folder: Path) -> None:
    """Raise where a reference knows nothing of these data."""
    if not reference.groups:
        raise CohortError(
            f"no series of the reference '{folder}' was certified: there is nothing to agree with"
        )
    known = {group.split(" ")[0] for group in reference.groups}
    asked = {row["modality"] or "unknown" for row in rows}
    if not known & asked:
        raise CohortError(
            f"the reference '{folder}' holds the modalities {', '.join(sorted(known))}, these data "
            f"{', '.join(sorted(asked))}: there is nothing to agree with"
        )


def _made_with(settings: Settings) -> Json:
    return {
        "method": settings.method,
        "options": plain(settings.options),
        "sd_tolerance": settings.tolerance,
    }


def _told(made: Json) -> str:
    """Return method and options for people."""
    options = ", ".join(f"{name}={json.dumps(value)}" for name, value in made["options"].items())
    return f"{made['method']} ({options})" if options else str(made["method"])


def write_reference(out: Path, reference: Reference, settings: Settings) -> None:
    """Keep a reference in the folder, with the method and options that made it."""
    write_json(out / REFERENCE, {**_made_with(settings), "groups": reference.to_json()})


def _read_reference(folder: Path) -> tuple[Json, Reference]:
    """Return how a folder's reference was made, and the reference."""
    from vesalius.normalization.reference import Reference

    record = read_json(folder / REFERENCE)
    try:
        made = {name: record[name] for name in ("method", "options", "sd_tolerance")}
        return made, Reference.from_json(record["groups"])
    except KeyError as error:
        raise RunError(
            f"the reference of '{folder}' cannot be read ({error} is missing in {REFERENCE}); "
            "normalize it again"
        ) from error


def _of(certificates: Any) -> Reference:
    """Return the reference that certified series make."""
    from vesalius.normalization import Verdict
    from vesalius.normalization.reference import Reference

    reference = Reference()
    for one in certificates:
        if one.verdict != Verdict.REFUSED and one.region_mean is not None:
            reference.add(
                one.group, mean=one.region_mean, sd=one.region_sd, shares=one.region_shares
            )
    return reference


def compare_all(
    found: dict[str, Certificate],
    rows: Sequence[Json],
    training: Sequence[Json],
    settings: Settings,
    team: Team,
) -> tuple[dict[str, Certificate], Reference]:
    """Hold every series against the whole; let those that stand out climb on.

    The whole is what the first pass certified, kept on disk: an interrupted call goes on with it.
    """
    from vesalius.flows.normalizing.worker import certificate_path
    from vesalius.normalization.checks import agrees, compare
    from vesalius.normalization.reference import Reference

    out = team.out or Path()
    reference = _read_reference(out)[1] if (out / REFERENCE).exists() else Reference()
    if not reference.groups:  # nothing was certified before
        reference = _of(found[row["key"]] for row in training)
        write_reference(out, reference, settings)
    compared = {key: compare(one, reference) for key, one in found.items()}
    waiting = [row for row in rows if not agrees(compared[row["key"]])]
    if waiting:
        climbing = replace(settings, reference=reference)
        if settings.method == "auto":
            agreeing = [row for row in training if compared[row["key"]].certified]
            climbing = replace(climbing, fitted=_quantiles(out, agreeing, settings, team))
        compared |= team.certify(waiting, climbing, again=True)
    for key, one in compared.items():
        if one is not found[key]:
            write_json(certificate_path(out, key), one.to_json())
    return compared, reference


def _quantiles(out: Path, rows: Sequence[Json], settings: Settings, team: Team) -> dict[str, Any]:
    """Return group -> fitted quantile matching, kept on disk: the second pass changes `rows`."""
    kept = _kept_quantiles(out)
    if kept is not None:
        return kept
    fitted = team.fitted(rows, replace(settings, method="quantile", options={})) if rows else {}
    keep_quantiles(out, fitted)
    return fitted


def keep_quantiles(out: Path, fitted: Mapping[str, Any]) -> None:
    """Keep fitted quantile matching in the folder."""
    write_json(out / QUANTILE, {group: method.to_json() for group, method in fitted.items()})


def _kept_quantiles(folder: Path) -> dict[str, Any] | None:
    from vesalius.normalization.normalizer import method_from_json

    if not (folder / QUANTILE).exists():
        return None
    kept = read_json(folder / QUANTILE)
    return {group: method_from_json(record) for group, record in kept.items()}
