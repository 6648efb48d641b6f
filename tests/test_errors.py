# SPDX-License-Identifier: Apache-2.0
"""The error tree: drawn as it is, picklable across worker processes, with documented exit codes."""

from __future__ import annotations

import pickle

from vesalius import errors


def _tree() -> list[type[errors.VesaliusError]]:
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    return [kind for kind in kinds if issubclass(kind, errors.VesaliusError)]


def test_docstring_draws_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in _tree():
        assert kind.__name__ in errors.__doc__


def test_exit_codes_are_distinct_per_branch() -> None:
    branches = errors.VesaliusError.__subclasses__()
    codes = [branch.exit_code for branch in branches]
    assert len(set(codes)) == len(codes)
    assert all(kind.exit_code == errors.DataError.exit_code for kind in (errors.CorruptFile,))


def test_read_errors_survive_pickling_with_their_evidence() -> None:
    error = errors.LimitExceeded("too big", path="a/b", wanted=7, allowed=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.LimitExceeded
    assert str(again) == "a/b: too big"
    assert again.evidence == {"wanted": 7, "allowed": 3}
    assert again.finding == "limit-exceeded"


def test_did_you_mean_names_the_nearest_or_nothing() -> None:
    assert errors.did_you_mean("diagnosys", ["diagnosis", "age"]) == " Did you mean 'diagnosis'?"
    assert errors.did_you_mean("zzz", ["diagnosis"]) == ""
