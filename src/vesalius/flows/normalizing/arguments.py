# SPDX-License-Identifier: Apache-2.0
"""What `normalize` is asked for: a look at its arguments, and trying a method's options out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from vesalius.errors import DataError, UsageError, did_you_mean
from vesalius.types import Json


def validate(
    method: str, options: Mapping[str, Any], tolerance: float, written: str, workers: int | None
) -> dict[str, Any]:
    """Return the options, lists as tuples, after a look at all arguments."""
    from vesalius.flows.normalizing.worker import SUFFIXES
    from vesalius.normalization.card import Kind
    from vesalius.normalization.method import MODULES, module_of

    steps = [] if method == "auto" else method.split("+")
    for number, step in enumerate(steps):
        if step not in MODULES:
            known = ["auto", *MODULES]
            raise UsageError(
                f"method must be one of {', '.join(known)}, got '{step}'."
                f"{did_you_mean(step, known)}"
            )
        card = module_of(step).CARD
        if card.kind is Kind.TABLE:
            raise UsageError(
                f"'{step}' works on tables of features or co-registered voxels; use "
                f"vesalius.normalization.{MODULES[step]} from Python"
            )
        if card.fitted and step != steps[0]:
            raise UsageError(f"'{step}' is fitted on the images as they are: put it first")
        if card.kind is Kind.STAIN and number:
            raise UsageError(f"'{step}' works on the colors of the slide as they are: put it first")
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}")
    if not 0 < tolerance < 1:
        raise UsageError(f"sd_tolerance must lie between 0 and 1, got {tolerance}")
    if written not in SUFFIXES:
        raise UsageError(
            f"format must be one of {', '.join(SUFFIXES)}, got '{written}'."
            f"{did_you_mean(written, SUFFIXES)}"
        )
    return _checked(steps[0] if steps else "auto", options)


def _checked(step: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's options, lists as tuples, if it takes them."""
    allowed = {} if step == "auto" else _options(step)
    found = {}
    for name, value in options.items():
        if name not in allowed:
            raise UsageError(
                f"'{step}' takes the options {', '.join(allowed) or 'none'}, got '{name}'."
                f"{did_you_mean(name, allowed)}"
            )
        found[name] = _tuples(value)
        if not _alike(found[name], allowed[name]):
            raise UsageError(
                f"option {name} of '{step}' must be like {json.dumps(allowed[name])}, got {value!r}"
            )
    if found:
        _try_out(step, found)
    return found


def _try_out(step: str, options: Mapping[str, Any]) -> None:
    """Raise where a method does not take these values: build it; what needs a grid, use it."""
    import numpy as np

    from vesalius.normalization.card import Kind
    from vesalius.normalization.method import module_of

    module = module_of(step)
    values = np.random.default_rng(0).integers(1, 256, (3, 24, 24, 24)).astype(np.float32)
    try:
        if module.CARD.kind is Kind.SPATIAL:
            mask = np.ones(values.shape[1:], bool)
            module.correct(values[0], mask, spacing=(1.0, 1.0, 1.0), **options)
        elif module.CARD.fitted:
            module.FIT(**options)
        elif module.CARD.kind is Kind.STAIN:
            module.METHOD(**options).normalize(values[..., 0])
        else:
            module.METHOD(**options)
    except DataError:  # of this noise: the options are what was asked about
        return
    except (UsageError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in options.items())
        raise UsageError(f"'{step}' does not take {given}: {error}") from error


def _alike(value: Any, like: Any) -> bool:
    """Return whether a value has the type of a default; every entry that of its first one."""
    if isinstance(like, tuple):
        return isinstance(value, tuple) and all(_alike(one, like[0]) for one in value)
    if isinstance(like, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (isinstance(value, float) and math.isfinite(value))
    return type(value) is type(like)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def plain(options: Mapping[str, Any]) -> Json:
    """Return options as JSON holds them: lists for tuples."""
    plain: Json = json.loads(json.dumps(dict(options)))
    return plain


def _options(step: str) -> dict[str, Any]:
    """Return the parameters of a method that a command line can give -> their defaults."""
    from inspect import signature

    from vesalius.normalization.card import Kind
    from vesalius.normalization.method import module_of

    module = module_of(step)
    if module.CARD.kind is Kind.SPATIAL:
        called = module.correct
    else:
        called = module.FIT if module.CARD.fitted else module.METHOD
    plain = (bool, int, float, str, tuple)  # not images, nor what a fit gathers
    return {
        name: one.default
        for name, one in signature(called).parameters.items()
        if isinstance(one.default, plain)
    }


def needs_fit(method: str) -> bool:
    """Return whether a method, its first step if several, is fitted before it is used."""
    from vesalius.normalization.method import module_of

    return method != "auto" and bool(module_of(method.split("+")[0]).CARD.fitted)
