# SPDX-License-Identifier: Apache-2.0
"""Methods as JSON: the name of the method and its fields, nothing else."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vesalius.errors import RunError
from vesalius.types import Json


def to_record(method: Any) -> Json:
    """Return `{"method": name, field: value, ...}` of a dataclass with a `card`."""
    record: Json = {"method": method.card.name}
    for one in fields(method):
        value = getattr(method, one.name)
        record[one.name] = [*value] if isinstance(value, tuple) else value
    return record


def parameters(record: Json, method: Any) -> dict[str, Any]:
    """Return the arguments that build `method` (a class) from what `to_record` wrote.

    Raises:
        RunError: the record is of another method, or names other fields.
    """
    name, known = method.card.name, {one.name for one in fields(method)}
    held = {key: value for key, value in record.items() if key != "method"}
    if record.get("method") != name or set(held) != known:
        raise RunError(
            f"the record must be of method '{name}' with {', '.join(sorted(known)) or 'no field'}; "
            f"got method '{record.get('method')}' with {', '.join(sorted(held)) or 'no field'}; "
            "load it with the version that wrote it"
        )
    return {key: tuple(value) if isinstance(value, list) else value for key, value in held.items()}
