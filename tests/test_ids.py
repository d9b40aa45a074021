"""Public ids are ULIDs."""

from __future__ import annotations

import os
import time

import pytest
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_ids_of_its_own() -> None:
    new_uid()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, new_uid().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = os.read(read, 26).decode()
    os.close(read)
    os.close(write)
    # The time may be the same, what is left to chance may not.
    assert child[10:] != new_uid()[10:]
