"""Public ids are ULIDs."""

from __future__ import annotations

import time

from ulid import ULID

from tokentape.ids import new_uid


def test_an_id_is_a_ulid_of_now() -> None:
    before = time.time()
    read = ULID.from_str(new_uid())
    # A ULID has whole milliseconds.
    assert before - 0.001 <= read.timestamp <= time.time()


def test_ids_differ_and_sort_by_time() -> None:
    uids = []
    for _ in range(20):
        uids.append(new_uid())
        time.sleep(0.002)
    assert uids == sorted(set(uids))
    assert {len(uid) for uid in uids} == {26}
    assert len({new_uid() for _ in range(10_000)}) == 10_000
