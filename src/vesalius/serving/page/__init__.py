# SPDX-License-Identifier: Apache-2.0
"""The review page: what a person looks at, corrects and decides, and what is kept of that."""
