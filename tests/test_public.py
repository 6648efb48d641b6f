# SPDX-License-Identifier: Apache-2.0
"""The public face: a handful of names, all importable, none of them heavy until used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import vesalius

HEAVY = ("torch", "numpy", "lancedb", "pydicom", "matplotlib", "pandas", "SimpleITK", "scipy")


@pytest.mark.parametrize("name", vesalius.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(vesalius, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scann'"):
        _ = vesalius.scann


def test_face_lists_what_it_exports() -> None:
    assert set(dir(vesalius)) == set(vesalius.__all__)
    assert set(vesalius._HOMES) | {"__version__"} == set(vesalius.__all__)


@pytest.mark.parametrize("statement", ["import vesalius", "import vesalius.cli.main"])
def test_import_is_light(statement: str) -> None:
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_verbs_and_commands_share_argument_names() -> None:
    from vesalius.cli.main import app

    # Options that exist on one side only, each for its reason.
    only_cli = {"as_json", "strict", "limit", "headers_only", "max_image_memory"}
    only_cli |= {"list_methods"}  # a function of its own
    only_cli |= {"forget", "compact", "status"}  # of `index`: functions of their own
    only_cli |= {"fuse", "onto", "spacing", "kind", "ignore_frame", "context"}  # of `fuse`
    only_python = {"progress", "pixels", "limits", "say", "command"}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__
        cli = set(inspect.signature(command.callback).parameters) - only_cli
        cli -= {"explain"} if name == "normalize" else set()  # a function of its own
        python = set(inspect.signature(getattr(vesalius, name)).parameters) - only_python
        assert cli == python, name
