# SPDX-License-Identifier: Apache-2.0
"""Reading budgets, capped inflation and filling, against zlib and gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import CorruptFile, LimitExceeded
from vesalius.io.limits import Limits, fill, inflate


def test_small_files_have_the_floor_and_large_ones_the_ratio():
    limits = Limits(floor=1000, ratio=10)
    assert limits.allowed(1) == 1000
    assert limits.allowed(5000) == 50000
    limits.check(1000, 1, what="x")
    with pytest.raises(LimitExceeded, match="max-image-memory") as raised:
        limits.check(1001, 1, what="x", path="a.nii")
    assert raised.value.evidence == {"wanted": 1001, "allowed": 1000}
    assert str(raised.value).startswith("a.nii: ")


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=4),
    repeat=st.integers(1, 600),
    padding=st.integers(0, 40),
)
def test_gzip_of_any_number_of_members(parts, repeat, padding):
    whole = b"".join(parts) * repeat
    packed = b"".join(gzip.compress(part * repeat) for part in parts) + bytes(padding)
    expected = b"".join(part * repeat for part in parts)
    assert len(expected) == len(whole)
    pieces = list(inflate(io.BytesIO(packed), wbits=31, cap=len(expected)))
    assert b"".join(pieces) == expected
    assert max(map(len, pieces), default=0) <= 1 << 18


@pytest.mark.parametrize("wbits", [15, -15, 31, 47])
def test_one_byte_over_the_cap_raises(wbits):
    engine = zlib.compressobj(9, zlib.DEFLATED, 31 if wbits == 47 else wbits)
    packed = engine.compress(bytes(10_000_000)) + engine.flush()
    assert sum(map(len, inflate(io.BytesIO(packed), wbits=wbits, cap=10_000_000))) == 10_000_000
    with pytest.raises(LimitExceeded):
        list(inflate(io.BytesIO(packed), wbits=wbits, cap=9_999_999))


def test_truncated_and_damaged_streams_are_corrupt():
    packed = gzip.compress(np.random.default_rng(0).bytes(50_000))
    for broken in (packed[:-9], packed[:100], b"", packed[:300] + b"\xff" * 9 + packed[309:]):
        with pytest.raises(CorruptFile):
            list(inflate(io.BytesIO(broken), wbits=31, cap=1 << 20, path="a.gz"))


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    skip=st.integers(0, 90),
    count=st.integers(1, 60),
)
def test_fill_copies_what_follows_the_skip(cuts, skip, count):
    stream = bytes(n % 251 for n in range(sum(cuts)))
    ends = np.cumsum([0, *cuts])
    pieces = (stream[a:b] for a, b in pairwise(ends))
    out = np.zeros(count, np.uint8)
    if len(stream) < skip + count:
        with pytest.raises(CorruptFile, match="voxel data end"):
            fill(pieces, out, skip=skip)
    else:
        fill(pieces, out, skip=skip)
        assert out.tobytes() == stream[skip : skip + count]
