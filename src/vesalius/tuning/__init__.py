# SPDX-License-Identifier: Apache-2.0
"""Search: a declared space, tuners that ask what to try next, executors that try it."""
