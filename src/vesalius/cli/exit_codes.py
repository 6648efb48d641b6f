# SPDX-License-Identifier: Apache-2.0
"""The exit codes that no error carries.

All exit codes: 0 done; 1 a defect of Vesalius; 2 wrong usage; 3 the data cannot serve; 4 a library
is missing; 5 memory, disk or minutes do not suffice; 6 no network; 7 `check --strict` or `doctor`
found errors; 130 interrupted. Those from 1 to 6 stand in `vesalius.errors`.
"""

from __future__ import annotations

FOUND_ERRORS = 7
INTERRUPTED = 130
