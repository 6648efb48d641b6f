# SPDX-License-Identifier: Apache-2.0
"""What a finished normalization leaves beside its series: tests, normalizer, table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.flows.normalizing.arguments import plain
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.normalization import Certificate, Normalizer, Settings
    from vesalius.normalization.equivalence import Equivalence


def equivalences(certificates: Sequence[Certificate], rows: Sequence[Json]) -> list[Equivalence]:
    """Return site and scanner tests of every group, empty where fewer than two are named."""
    from vesalius.normalization.equivalence import site_equivalence

    measured = [
        (row, one)
        for row, one in zip(rows, certificates, strict=True)
        if one.certified and one.region_mean is not None
    ]
    equivalence: list[Equivalence] = []
    groups = sorted({one.group for _, one in measured})
    for group in groups:
        members = [(row, one) for row, one in measured if one.group == group]
        for column in ("site", "scanner"):
            found = site_equivalence(
                [row[column] or "" for row, _ in members],
                [one.region_mean or 0.0 for _, one in members],
                [one.region_sd or 0.0 for _, one in members],
            )
            if len(groups) > 1:
                found = [replace(one, site=f"{one.site} ({group})") for one in found]
            equivalence += found
    return equivalence


def normalizer_of(certificates: Sequence[Certificate], settings: Settings) -> Normalizer:
    """Return what treats further images alike: `auto` as its second rung, fixed units as is."""
    from vesalius.normalization import Coverage, Normalizer, Verdict
    from vesalius.normalization.card import Kind
    from vesalius.normalization.intensity.as_is import AsIs
    from vesalius.normalization.intensity.mad import Mad
    from vesalius.normalization.method import Method, module_of

    covers: dict[str, Coverage] = {}
    for one in certificates:
        if one.output:
            seen = covers.setdefault(one.modality, Coverage(one.unit))
            covers[one.modality] = seen if seen.unit == one.unit else Coverage(None)
    kept = {one.group: AsIs() for one in certificates if one.verdict == Verdict.FIXED}
    named = settings.method != "auto"
    *before, last = settings.method.split("+") if named else ["mad"]
    fitted = settings.fitted if named else {}
    module = module_of(last)
    method: Method
    if module.CARD.kind is not Kind.INTENSITY:
        before, method = [*before, last], AsIs()
    elif module.CARD.fitted:
        method = next((one for one in fitted.values() if one.card.name == last), Mad())
    else:
        method = module.METHOD(**({} if before else settings.options))
    return Normalizer(method, {**fitted, **kept}, covers, tuple(before), plain(settings.options))


def file_of(row: Json) -> str:
    """Return the path of a row below its root, for people."""
    first, *others = row["files"] or ("",)
    more = f" and {len(others)} more" if others else ""
    return f"{first}{more}, {row['member']}" if row["member"] else f"{first}{more}"


def write_table(out: Path, certificates: Sequence[Certificate], rows: Sequence[Json]) -> None:
    """Write `certificates.csv`: one line a series."""
    import csv
    from io import StringIO

    from vesalius.files import write_text

    names = (
        "key", "modality", "unit", "verdict", "reason", "method", "mean", "sd", "region_mean",
        "region_sd", "ks", "kl", "slice_drift", "worst_slice", "message", "output",
    )  # fmt: skip
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*names, "scanner", "site"])
    for one, row in zip(certificates, rows, strict=True):
        writer.writerow([*(getattr(one, name) for name in names), row["scanner"], row["site"]])
    write_text(out / "certificates.csv", stream.getvalue())
