# SPDX-License-Identifier: Apache-2.0
"""`vesalius leaderboard`: the trials of a search, best first, while it runs or after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.types import PathLike

if TYPE_CHECKING:
    from vesalius.flows.searching.result import SearchResult


def leaderboard(search: PathLike) -> SearchResult:
    """Return a search as its folder tells; nothing is trained, and a running one is not disturbed.

    Args:
        search: folder of the search.

    Raises:
        RunError: it is no search, or its journal is damaged.
    """
    from vesalius.flows.searching.result import SearchResult

    return SearchResult.load(search)
