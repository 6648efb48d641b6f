# SPDX-License-Identifier: Apache-2.0
"""ComBat: each site's shift and scale removed from a table, covariates kept.

`base = alpha + x beta`; `out = (y - base - gamma) / sqrt(delta) + base`, with
beta by least squares within sites, gamma and delta a site's shift and scale, shrunk over features
(`empirical_bayes`). Fitted on training rows from sums alone (`site_moments`).

Johnson et al., Biostatistics 2007; Fortin et al., NeuroImage 2018. Laws tested: order of rows and
of features; any partition; `a y + b` in gives `a out + b`; a reference site stays as it is. Only
for features or co-registered voxels: ComBat knows nothing of anatomy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.table.empirical_bayes import shrink
from vesalius.normalization.table.site_moments import (
    SiteMoments,
    check_rows,
    residual_squares,
    within_site_slopes,
)
from vesalius.types import Array, Json

CARD = Card(
    name="combat",
    title="site shift and scale removed, covariates kept",
    formula="y = (x - base - gamma_site) / sqrt(delta_site) + base",
    source="Johnson et al., Biostatistics 2007; Fortin et al., NeuroImage 2018",
    kind=Kind.TABLE,
    fitted=True,
)
Prior = Literal["parametric", "none"]


class UnseenSite(UserWarning):
    """Rows of a site that the fit never saw were mapped as if they were the reference site's."""


@dataclass(frozen=True, slots=True, eq=False)
class Combat:
    """A fitted harmonization: s sites, f features, p covariates; float64.

    Attributes:
        sites: labels in order.
        base: `(f,)` the harmonized level where covariates are zero.
        slopes: `(p, f)` of covariates, kept.
        sigma: `(f,)` pooled standard deviation; 0 where a feature is constant within every site.
        gamma: `(s, f)` shift of each site, in the feature's unit.
        delta: `(s, f)` variance of each site over the pooled one.
        reference_site: the site left as it is, or empty.
        notes: sentences on features that were not harmonized as the others were.
    """

    card: ClassVar[Card] = CARD
    sites: tuple[str, ...]
    base: Array
    slopes: Array
    sigma: Array
    gamma: Array
    delta: Array
    reference_site: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        features: Array,
        sites: Sequence[object] | Array,
        covariates: Array | None = None,
        *,
        reference_site: str = "",
        prior: Prior = "parametric",
        mean_only: bool = False,
        tolerance: float = 1e-10,
    ) -> Self:
        """Fit on training rows; see `from_moments`.

        Args:
            features: `(rows, features)`.
            sites: one label a row, compared as text.
            covariates: `(rows, covariates)` to keep, categories as indicator columns.
            reference_site, prior, mean_only, tolerance: as in `from_moments`.
        """
        moments = SiteMoments()
        moments.add(features, sites, covariates)
        return cls.from_moments(
            moments,
            reference_site=reference_site,
            prior=prior,
            mean_only=mean_only,
            tolerance=tolerance,
        )

    @classmethod
    def from_moments(
        cls,
        moments: SiteMoments,
        *,
        reference_site: str = "",
        prior: Prior = "parametric",
        mean_only: bool = False,
        tolerance: float = 1e-10,
    ) -> Self:
        """Fit from sums gathered in parts, on one machine or on many.

        Args:
            moments: of the training rows.
            reference_site: a site to map the others onto; it is left as it is.
            prior: `parametric` shrinks a site's estimates over features; `none` takes them as
                they are.
            mean_only: remove shifts, leave scales.
            tolerance: change of (gamma, delta) in units of (1, 1) plus their size that ends the
                empirical Bayes rounds (the first implementations stop at 1e-4).

        Raises:
            UsageError: an argument is not one of those allowed.
            NormalizationRefused: `not-covered` (fewer than two sites, or the reference site is not
                among them), `too-few-rows` (a site's variance needs two), `confounded`
                (covariates determine each other or the site).
        """
        if prior not in ("parametric", "none"):
            raise UsageError(f"prior must be 'parametric' or 'none', got {prior!r}")
        names = tuple(sorted(moments.sites))
        _check_sites(moments, names, reference_site, mean_only)
        parts = [moments.sites[name] for name in names]
        rows = np.array([part.rows for part in parts])  # (s,)
        slopes = within_site_slopes(parts)
        levels = np.array([part.mean - part.covariate_mean @ slopes for part in parts])  # (s, f)
        rest = np.array([residual_squares(part, slopes) for part in parts])  # (s, f)
        held = names.index(reference_site) if reference_site else None
        base = levels[held] if held is not None else rows @ levels / rows.sum()
        pooled = (
            rest[held] / rows[held] if held is not None else rest.sum(axis=0) / rows.sum()
        )  # population variance, as in Fortin's implementation
        size = np.sqrt(np.max([part.squares / part.rows + part.mean**2 for part in parts], axis=0))
        flat = np.sqrt(pooled) <= 1e-12 * size
        sigma = np.where(flat, 0.0, np.sqrt(pooled))
        gamma = np.where(flat & (np.abs(levels - base) <= 1e-12 * size), 0.0, levels - base)
        delta = np.ones_like(gamma)
        live = ~flat
        if live.any():
            z = gamma[:, live] / sigma[live]
            unit = np.ones_like(z)
            if not mean_only:
                unit = rest[:, live] / (rows[:, None] - 1) / pooled[live]
                unit[unit == 0] = 1.0  # no spread in that site: its scale stays
            if prior == "parametric":
                for n in range(len(names)):
                    z[n], unit[n] = shrink(z[n], unit[n], int(rows[n]), mean_only, tolerance)
            gamma[:, live], delta[:, live] = z * sigma[live], unit
        if held is not None:
            gamma[held], delta[held] = 0.0, 1.0
        return cls(
            names, base, slopes, sigma, gamma, delta, reference_site, _notes(flat, gamma, sigma)
        )

    def apply(
        self,
        features: Array,
        sites: Sequence[object] | Array,
        covariates: Array | None = None,
        *,
        unseen: Literal["refuse", "reference"] = "refuse",
    ) -> Array:
        """Return the harmonized rows `(rows, features)`, float64.

        Args:
            features: `(rows, features)`, as fitted.
            sites: one label a row.
            covariates: `(rows, covariates)`, as fitted.
            unseen: what becomes of a site that the fit never saw: `refuse`, or `reference`, which
                warns with `UnseenSite` and applies no site terms (needs a reference site).

        Raises:
            UsageError: shapes or arguments do not fit the fit.
            NormalizationRefused: `not-covered`, `empty` or `non-finite`.
        """
        y, labels, c = check_rows(features, sites, covariates)
        if (y.shape[1], c.shape[1]) != (len(self.base), len(self.slopes)):
            raise UsageError(
                f"features and covariates must number {len(self.base)} and {len(self.slopes)}, "
                f"as fitted, got {y.shape[1]} and {c.shape[1]}"
            )
        if unseen not in ("refuse", "reference"):
            raise UsageError(f"unseen must be 'refuse' or 'reference', got {unseen!r}")
        strange = sorted(set(labels.tolist()) - set(self.sites))
        if strange:
            self._pass_unseen(strange, unseen)
        out = y.copy()
        base = self.base + c @ self.slopes
        for n, site in enumerate(self.sites):
            chosen = labels == site
            # written as a change of y: what has no shift and no scale comes back bit for bit
            away = (y - base)[chosen] - self.gamma[n]
            out[chosen] -= self.gamma[n] + away * (1 - 1 / np.sqrt(self.delta[n]))
        return out

    def to_json(self) -> Json:
        """Return the fit; `from_json` reads it back."""
        record = to_record(self)
        return record | {name: record[name].tolist() for name in _ARRAYS}

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the fit of a record.

        Raises:
            RunError: the record is of another method or version.
        """
        held = parameters(record, cls)
        arrays = {name: np.array(held[name], np.float64) for name in _ARRAYS}
        arrays["slopes"] = arrays["slopes"].reshape(-1, len(arrays["base"]))
        return cls(**(held | arrays))

    def _pass_unseen(self, strange: list[str], unseen: str) -> None:
        if unseen == "refuse" or not self.reference_site:
            way_out = (
                "pass unseen='reference' to map it without site terms"
                if self.reference_site
                else "fit with a reference_site, or on rows of that site"
            )
            raise NormalizationRefused(
                "not-covered",
                f"sites must be among {', '.join(self.sites)}, got {', '.join(strange)}; {way_out}",
            )
        warnings.warn(
            f"sites {', '.join(strange)} were not fitted: mapped like reference site "
            f"'{self.reference_site}', their own shift and scale remain",
            UnseenSite,
            stacklevel=3,
        )


_ARRAYS = ("base", "slopes", "sigma", "gamma", "delta")


def _check_sites(
    moments: SiteMoments, names: tuple[str, ...], reference_site: str, mean_only: bool
) -> None:
    if len(names) < 2:
        raise NormalizationRefused(
            "not-covered", f"ComBat needs rows of at least two sites, got {list(names)}"
        )
    if reference_site and reference_site not in names:
        raise NormalizationRefused(
            "not-covered", f"reference_site must be among {', '.join(names)}, got {reference_site}"
        )
    lone = [name for name in names if moments.sites[name].rows < 2]
    if lone and not mean_only:
        raise NormalizationRefused(
            "too-few-rows",
            f"sites {', '.join(lone)} have one row; leave them out or pass mean_only=True",
        )


def _notes(flat: Array, gamma: Array, sigma: Array) -> tuple[str, ...]:
    notes = []
    moved = (gamma != 0).any(axis=0)
    for chosen, words in (
        (flat & ~moved, "constant: passed through"),
        (flat & moved, "constant within every site: only the shift is removed"),
    ):
        if chosen.any():
            notes.append(f"features {np.flatnonzero(chosen).tolist()} are {words}")
    if (sigma > 0).sum() == 1:
        notes.append("one feature: nothing to shrink over, site estimates taken as they are")
    return tuple(notes)


METHOD = Combat
