# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

from vcpu_guest.kernel.procfs import boot_id, command_line, deadline_tasks


def put(proc: Path, pid: int, tid: int, name: str, policy: int) -> None:
    directory = proc / str(pid) / "task" / str(tid)
    directory.mkdir(parents=True)
    fields = ["S", *["0"] * 37, str(policy), "0"]
    (directory / "stat").write_text(f"{tid} ({name}) {' '.join(fields)}\n")


def test_deadline_threads_are_found_by_their_policy(tmp_path: Path) -> None:
    put(tmp_path, 1, 1, "init", 0)
    put(tmp_path, 7, 7, "worker", 0)
    put(tmp_path, 7, 8, "odd) (name 6", 6)
    (tmp_path / "self").mkdir()
    assert deadline_tasks(tmp_path) == ("odd) (name 6 (pid 8)",)


def test_only_a_few_are_named(tmp_path: Path) -> None:
    for pid in range(10, 20):
        put(tmp_path, pid, pid, "d", 6)
    assert len(deadline_tasks(tmp_path, limit=3)) == 3


def test_names_cannot_carry_control_characters(tmp_path: Path) -> None:
    put(tmp_path, 7, 7, "a\x1b[2J", 6)
    assert deadline_tasks(tmp_path) == ("a?[2J (pid 7)",)


def test_processes_that_end_meanwhile_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "8" / "task" / "8").mkdir(parents=True)
    assert deadline_tasks(tmp_path) == ()


def test_the_field_is_the_one_that_this_kernel_means() -> None:
    assert f"(pid {os.getpid()})" not in "".join(deadline_tasks())


def test_the_boot_id_comes_from_the_unit_or_from_proc_in_one_form(tmp_path: Path) -> None:
    plain = "0123456789abcdef0123456789ABCDEF"
    dashed = "01234567-89ab-cdef-0123-456789abcdef"
    assert boot_id({"VCPUD_BOOT_ID": plain}, tmp_path) == dashed
    assert boot_id({}, tmp_path) == ""
    assert boot_id({"VCPUD_BOOT_ID": "%b"}, tmp_path) == ""
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(dashed + "\n")
    assert boot_id({}, tmp_path) == dashed


def test_the_command_line_is_read_where_it_is_shown(tmp_path: Path) -> None:
    shown, hidden = tmp_path / "cmdline", tmp_path / "none"
    assert command_line([hidden, shown]) == ""
    shown.write_text("nr_cpus=4\n")
    assert command_line([hidden, shown]) == "nr_cpus=4\n"
    assert command_line([shown, hidden]) == "nr_cpus=4\n"
