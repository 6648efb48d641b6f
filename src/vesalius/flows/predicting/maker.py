# SPDX-License-Identifier: Apache-2.0
"""Who answers: the run's name, plan and limits, for the objects that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.io.maker import Maker

if TYPE_CHECKING:
    from vesalius.tasks.run import Run


def maker_of(run: Run) -> Maker:
    """Return what every object says of the run that made it."""
    seen = [one for one in run.plan["fingerprint"].get("modalities", []) if one]
    license_ = run.plan.get("cohort", {}).get("license") or "not stated"
    limits = (
        "For research and development; not a medical device and not for diagnosis. Trained on "
        f"{', '.join(sorted(seen)) or 'images that state no modality'}; other modalities, "
        "scanners, protocols and populations than those of its cohort have not been measured. "
        f"License of its data: {license_}."
    )
    return Maker(model=f"{run.task}-{run.id[:8]}", run_id=run.id, limits=limits)
