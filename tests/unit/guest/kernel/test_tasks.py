# SPDX-License-Identifier: Apache-2.0
"""The threads of this machine, which a fake has no quirks for, and those of processes that end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from vcpu_guest.kernel.tasks import Tasks


def test_this_processs_threads_are_found_with_their_masks_and_names() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        tasks, pid = Tasks(), os.getpid()
        mine = {tid for process, tid in tasks.threads() if process == pid}
        assert {thread.native_id, threading.main_thread().native_id} <= mine
        for tid in mine:
            assert tasks.affinity(tid) <= (tasks.allowed(pid, tid) or frozenset())
            assert tasks.is_users(pid, tid)
            assert tasks.policy(tid) == os.sched_getscheduler(tid)
        assert tasks.describe(pid, pid).comm
        assert tasks.started(pid, pid) is not None
    finally:
        stop.set()
        thread.join()


def test_the_kernels_own_threads_are_not_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "2/task/2"
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"2 (kthreadd) S 0 0 0 0 -1 {0x208040} " + "0 " * 30)
    assert Tasks(str(tmp_path)).is_users(2, 2) is False


def test_of_a_thread_that_has_ended_nothing_is_known(tmp_path: Path) -> None:
    tasks = Tasks(str(tmp_path))
    assert (tasks.is_users(1, 1), tasks.started(1, 1), tasks.allowed(1, 1), tasks.cgroup(1, 1)) == (
        None,
        None,
        None,
        "",
    )
    assert tasks.describe(1, 1).comm == "?"
    (tmp_path / "9").mkdir()
    assert list(tasks.threads()) == []
