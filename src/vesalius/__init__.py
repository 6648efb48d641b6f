# SPDX-License-Identifier: Apache-2.0
"""Vesalius: from a folder of medical scans to models in production.

The public face. Each verb of the command line is a function here with the same argument names;
nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vesalius.version import __version__

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.flows.check import check
    from vesalius.flows.compare import compare
    from vesalius.flows.compress import compress
    from vesalius.flows.count import count
    from vesalius.flows.demo import demo
    from vesalius.flows.doctor import doctor
    from vesalius.flows.evaluate import evaluate
    from vesalius.flows.export import export
    from vesalius.flows.fetch import fetch
    from vesalius.flows.find import find
    from vesalius.flows.fuse import fuse
    from vesalius.flows.index import index
    from vesalius.flows.leaderboard import leaderboard
    from vesalius.flows.models import models
    from vesalius.flows.normalize import normalize
    from vesalius.flows.plan import plan
    from vesalius.flows.predict import predict
    from vesalius.flows.scan import scan
    from vesalius.flows.search import search
    from vesalius.flows.train import train
    from vesalius.io import read, write
    from vesalius.normalization import Normalizer
    from vesalius.operation.promote import promote
    from vesalius.operation.rollback import rollback
    from vesalius.operation.serve import serve
    from vesalius.serving.audit import audit
    from vesalius.serving.status import status
    from vesalius.tasks.run import Run
    from vesalius.volume import LabelMap, Volume

_HOMES = {
    "Cohort": "vesalius.cohorts",
    "LabelMap": "vesalius.volume",
    "Normalizer": "vesalius.normalization",
    "Run": "vesalius.tasks.run",
    "Volume": "vesalius.volume",
    "audit": "vesalius.serving.audit",
    "check": "vesalius.flows.check",
    "compare": "vesalius.flows.compare",
    "compress": "vesalius.flows.compress",
    "count": "vesalius.flows.count",
    "demo": "vesalius.flows.demo",
    "doctor": "vesalius.flows.doctor",
    "evaluate": "vesalius.flows.evaluate",
    "export": "vesalius.flows.export",
    "fetch": "vesalius.flows.fetch",
    "find": "vesalius.flows.find",
    "fuse": "vesalius.flows.fuse",
    "index": "vesalius.flows.index",
    "leaderboard": "vesalius.flows.leaderboard",
    "models": "vesalius.flows.models",
    "normalize": "vesalius.flows.normalize",
    "plan": "vesalius.flows.plan",
    "predict": "vesalius.flows.predict",
    "promote": "vesalius.operation.promote",
    "read": "vesalius.io",
    "rollback": "vesalius.operation.rollback",
    "scan": "vesalius.flows.scan",
    "search": "vesalius.flows.search",
    "serve": "vesalius.operation.serve",
    "status": "vesalius.serving.status",
    "train": "vesalius.flows.train",
    "write": "vesalius.io",
}

__all__ = [
    "Cohort",
    "LabelMap",
    "Normalizer",
    "Run",
    "Volume",
    "__version__",
    "audit",
    "check",
    "compare",
    "compress",
    "count",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "fetch",
    "find",
    "fuse",
    "index",
    "leaderboard",
    "models",
    "normalize",
    "plan",
    "predict",
    "promote",
    "read",
    "rollback",
    "scan",
    "search",
    "serve",
    "status",
    "train",
    "write",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'vesalius' has no attribute {name!r}") from None
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
