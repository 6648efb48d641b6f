# SPDX-License-Identifier: Apache-2.0
"""The parts of `vesalius compress`: teacher, choice of the student, its run, cost and quality."""
