# SPDX-License-Identifier: Apache-2.0
"""The suite that every engine of archives passes: what `store.protocol` promises, check by check.

```python
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conforms(check, tmp_path):
    check(Engine(create=..., reopen=...))
```
A check gets an engine, makes archives of its own and raises `AssertionError` where a promise is
broken. Checks compare with plain NumPy and Python, never with another engine.
"""

from vesalius.store.conformance import filters, vectors, versions, words, writing
from vesalius.store.conformance.engine import Check, Engine

CHECKS: tuple[Check, ...] = (
    *writing.CHECKS,
    *vectors.CHECKS,
    *filters.CHECKS,
    *words.CHECKS,
    *versions.CHECKS,
)

__all__ = ["CHECKS", "Check", "Engine"]
