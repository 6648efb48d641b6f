# SPDX-License-Identifier: Apache-2.0
"""The parts of `vesalius normalize`: its arguments, its folder, its workers, its reference."""
