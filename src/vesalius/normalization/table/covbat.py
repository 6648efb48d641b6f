# SPDX-License-Identifier: Apache-2.0
"""CovBat: ComBat, then ComBat again on principal component scores, so that covariances agree too.

`e = (combat(y) - base) / sigma`; scores `t = (e - mean) V` on the components that explain
`variance` of e; each site's mean and SD of each score is set to the pooled one (ComBat without
shrinkage or covariates); `out = base + sigma (e + (t' - t) V^T)`.

Chen et al.: Mitigating site effects in covariance for machine learning in neuroimaging data, Human
Brain Mapping 2022. Laws tested: order of rows; covariate slopes kept; sites whose features already
share one covariance are left near ComBat's result. The components need all training rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.method_record import parameters
from vesalius.normalization.table.combat import Combat, Prior
from vesalius.normalization.table.site_moments import check_rows
from vesalius.types import Array, Json

CARD = Card(
    name="covbat",
    title="ComBat on features, then on principal component scores",
    formula="e = (combat(x) - base) / sigma; scores harmonized; y = base + sigma e'",
    source="Chen et al., Human Brain Mapping 2022",
    kind=Kind.TABLE,
    fitted=True,
)


@dataclass(frozen=True, slots=True, eq=False)
class CovBat:
    """A fitted harmonization: f features, q components; float64.

    Attributes:
        combat: fitted on the features.
        mean: `(f,)` of the standardized residuals.
        components: `(q, f)`, rows of unit length.
        scores: ComBat fitted on the `q` scores.
    """

    card: ClassVar[Card] = CARD
    combat: Combat
    mean: Array
    components: Array
    scores: Combat

    @classmethod
    def fit(
        cls,
        features: Array,
        sites: Sequence[object] | Array,
        covariates: Array | None = None,
        *,
        reference_site: str = "",
        prior: Prior = "parametric",
        variance: float = 0.95,
    ) -> Self:
        """Fit on training rows.

        Args:
            features: `(rows, features)`.
            sites: one label a row.
            covariates: `(rows, covariates)` to keep.
            reference_site: as in `Combat.fit`; its rows stay as they are.
            prior: of the first ComBat.
            variance: share of the residuals' variance that harmonized components explain, in
                (0, 1].

        Raises:
            UsageError: an argument is not allowed.
            NormalizationRefused: as `Combat.fit`, or `constant`: no feature varies within a site.
        """
        if not 0 < variance <= 1:
            raise UsageError(f"variance must lie in (0, 1], got {variance}")
        y, labels, c = check_rows(features, sites, covariates)
        combat = Combat.fit(y, labels, c, reference_site=reference_site, prior=prior)
        if not (combat.sigma > 0).any():
            raise NormalizationRefused("constant", "no feature varies within a site")
        rest = _standardized(combat, combat.apply(y, labels, c), c)
        mean = rest.mean(axis=0)
        _, lengths, directions = np.linalg.svd(rest - mean, full_matrices=False)
        explained = np.cumsum(lengths**2) / (lengths**2).sum()
        count = int(np.searchsorted(explained, variance * (1 - 1e-12))) + 1
        components = directions[:count]
        scores = Combat.fit(
            (rest - mean) @ components.T, labels, reference_site=reference_site, prior="none"
        )
        return cls(combat, mean, components, scores)

    def apply(
        self,
        features: Array,
        sites: Sequence[object] | Array,
        covariates: Array | None = None,
        *,
        unseen: Literal["refuse", "reference"] = "refuse",
    ) -> Array:
        """Return the harmonized rows `(rows, features)`, float64; as `Combat.apply`."""
        y, labels, c = check_rows(features, sites, covariates)
        out = self.combat.apply(y, labels, c, unseen=unseen)
        known = np.isin(labels, self.combat.sites)  # others were let pass, without site terms
        if not known.any():
            return out
        rest = _standardized(self.combat, out[known], c[known])
        old = (rest - self.mean) @ self.components.T
        new = self.scores.apply(old, labels[known])
        out[known] += (new - old) @ self.components * self.combat.sigma
        return out

    def to_json(self) -> Json:
        """Return the fit; `from_json` reads it back."""
        return {
            "method": CARD.name,
            "combat": self.combat.to_json(),
            "mean": self.mean.tolist(),
            "components": self.components.tolist(),
            "scores": self.scores.to_json(),
        }

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the fit of a record.

        Raises:
            RunError: the record is of another method or version.
        """
        held = parameters(record, cls)
        return cls(
            Combat.from_json(held["combat"]),
            np.array(held["mean"], np.float64),
            np.array(held["components"], np.float64),
            Combat.from_json(held["scores"]),
        )


def _standardized(combat: Combat, harmonized: Array, covariates: Array) -> Array:
    """Return what covariates leave over, in pooled standard deviations; 0 for flat features."""
    rest = harmonized - combat.base - covariates @ combat.slopes
    out: Array = np.divide(rest, combat.sigma, out=np.zeros_like(rest), where=combat.sigma > 0)
    return out


METHOD = CovBat
