# SPDX-License-Identifier: Apache-2.0
"""What the review page asks an archive: `vesalius find`, with small pictures of what is found."""

from __future__ import annotations

from pathlib import Path

from vesalius.types import Json

_PICTURES = 3  # of one case


def similar(archive: str, exam: str, words: str, count: int, balance: float) -> Json:
    """Return the cases of an archive that are like an exam, words, or both.

    Args:
        archive: its folder.
        exam: folder of the exam's files, or empty.
        words: or empty.
        count: how many cases.
        balance: what words weigh beside images, 0 to 1.

    Returns:
        The answer of `vesalius find` without its page; each case with `pictures`, `data:` addresses
        of the images that tell most. No path and no patient.

    Raises:
        UsageError, DataError, RunError: as `vesalius find` does.
    """
    from vesalius.flows.find import find
    from vesalius.flows.indexing.folder import opened
    from vesalius.reporting.retrieval_pictures import shown
    from vesalius.serving.attributes import LIMITS

    found = find(
        archive, image=[exam] if exam else [], words=words, k=count, balance=balance, limits=LIMITS
    )
    answer = found.to_json()
    answer.pop("html")
    held = opened(Path(archive), found.version)
    for case in answer["cases"]:
        ranked = sorted(case["pairs"], key=lambda pair: -pair["cosine"])
        keys = list(dict.fromkeys(pair["entry"] for pair in ranked))[:_PICTURES]
        entries = held.entries(keys or [case["entry"]])
        case["pictures"] = [shown(one.thumbnail) for one in entries if one.thumbnail]
    return answer
