# SPDX-License-Identifier: Apache-2.0
"""The program `vesalius`: its global options, its verbs, and how its errors end.

A verb is a function in the file of its name: arguments in, flow called, outcome printed. The files
import nothing heavy before a verb is called; `vesalius.cli.exit_codes` lists the exit codes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.audit import audit
from vesalius.cli.check import check
from vesalius.cli.compare import compare
from vesalius.cli.compress import compress
from vesalius.cli.count import count
from vesalius.cli.demo import demo
from vesalius.cli.doctor import doctor
from vesalius.cli.evaluate import evaluate
from vesalius.cli.exit_codes import INTERRUPTED
from vesalius.cli.export import export
from vesalius.cli.fetch import fetch
from vesalius.cli.find import find
from vesalius.cli.index import index
from vesalius.cli.leaderboard import leaderboard
from vesalius.cli.models import models
from vesalius.cli.normalize import normalize
from vesalius.cli.plan import plan
from vesalius.cli.predict import predict
from vesalius.cli.promote import promote
from vesalius.cli.rollback import rollback
from vesalius.cli.scan import scan
from vesalius.cli.search import search
from vesalius.cli.serve import serve
from vesalius.cli.status import status
from vesalius.cli.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

_VERBS: tuple[Callable[..., None], ...] = (  # in the order of `vesalius --help`
    scan, check, plan, train, search, leaderboard, compress, evaluate, predict, compare,
    index, find, count, export, models, normalize, demo, serve, promote, rollback, status, audit,
    fetch, doctor,
)  # fmt: skip

app = typer.Typer(
    name="vesalius",
    help="From a folder of medical scans to models in production.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in _VERBS:
    app.command()(_verb)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import vesalius

        terminal.say(f"vesalius {vesalius.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; the user's own mistakes end in one sentence, never a traceback."""
    from vesalius.errors import VesaliusError

    try:
        app()
    except VesaliusError as error:
        sys.stderr.write(f"vesalius: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("vesalius: interrupted; the same command goes on where this stopped\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
