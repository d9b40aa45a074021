"""The clock that tests move by hand."""

from __future__ import annotations

import pytest

from tokentape.testing import FakeClock


def test_fake_clock_stands_still_until_it_is_advanced():
    fake = FakeClock(monotonic_ns=5, unix_ns=1_000)
    before = (fake.clock.monotonic_ns(), fake.clock.unix_ns())

    fake.advance(1, ms=20, us=3)

    assert before == (5, 1_000)
    assert (fake.clock.monotonic_ns(), fake.clock.unix_ns()) == (1_020_003_005, 1_020_004_000)


def test_setting_the_wall_clock_back_leaves_the_monotonic_clock_alone():
    fake = FakeClock(monotonic_ns=5, unix_ns=7_000_000_000)

    fake.shift_wall(-2)

    assert (fake.clock.monotonic_ns(), fake.clock.unix_ns()) == (5, 5_000_000_000)


def test_fake_clock_refuses_to_go_back():
    with pytest.raises(ValueError, match=r"-1000000 ns is negative; use shift_wall"):
        FakeClock().advance(ms=-1)
