# SPDX-License-Identifier: Apache-2.0
"""What a worker does for drift beside each study: whatever goes wrong here harms no answer."""

from __future__ import annotations

import logging
from pathlib import Path

from vesalius.serving import drift_facts, drift_watch
from vesalius.serving.audit import Audit
from vesalius.serving.drift_facts import Facts
from vesalius.serving.queue import Job
from vesalius.serving.state import State
from vesalius.types import Json

_LOG = logging.getLogger(__name__)


def of_images(state: State, exam: Path) -> Facts:
    """Return facts of a study's images, or none where they cannot be had."""
    try:
        return drift_facts.of_images(exam, Audit(state).pseudonym)
    except Exception as error:
        _LOG.error("no facts of a study: %s", type(error).__name__)
        return drift_facts.NONE


def with_answer(facts: Facts, answer: Json) -> Facts:
    """Return the facts with those of the answer; likewise."""
    try:
        return facts.answered(answer)
    except Exception as error:
        _LOG.error("no facts of an answer: %s", type(error).__name__)
        return facts


def look(state: State, job: Job, facts: Facts) -> None:
    """Look at the study's groups after its job has ended; an alarm goes into the audit log."""
    try:
        for found in drift_watch.look(state, job.subject, facts, drift_facts.of_validation):
            if found["alarms"]:
                Audit(state).write(
                    "server",
                    "drift",
                    rule=found["rule"],
                    run=found["run"],
                    of=found["of"],
                    alarms=found["alarms"],
                )
    except Exception as error:
        _LOG.error("drift could not be looked at: %s", type(error).__name__)
