# SPDX-License-Identifier: Apache-2.0
"""The files of the load, as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_guest.kernel.load import LoadFiles

STAT = "cpu  1 0 0 0 0 0 0 0 0 0\ncpu0 100 0 0 0 0 0 0 0 0 0\nprocs_running 3\n"


def _paths(folder: Path) -> dict[str, tuple[str, str]]:
    return {name: (f"{folder}/sandbox-{name}", f"{folder}/{name}") for name in ("stat", "schedstat", "cpu", "memory")}


def test_all_files_together_make_a_look(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    (tmp_path / "schedstat").write_text("version 15\ncpu0 0 0 0 0 0 0 1 5000 3\n")
    (tmp_path / "cpu").write_text("some avg10=0.00 total=7\n")
    (tmp_path / "sandbox-memory").write_text("some avg10=0.00 total=8\n")
    files = LoadFiles(_paths(tmp_path), lambda: 12.5, triggers=())
    try:
        look = files.read()
        (tmp_path / "cpu").write_text("some avg10=0.00 total=9\n")
        again = files.read()
    finally:
        files.close()
    assert look.seconds == 12.5
    assert (look.cpus[0].busy, look.cpus[0].waited) == (1_000_000, 5)
    assert look.runnable == 2  # without the agent itself
    assert (look.cpu_pressure, look.memory_pressure) == (7, 8)
    assert again.cpu_pressure == 9


def test_all_but_the_cpus_times_may_lack(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    files = LoadFiles(_paths(tmp_path), lambda: 1.0)
    try:
        look = files.read()
        assert files.descriptor is None
    finally:
        files.close()
    assert (look.cpu_pressure, look.memory_pressure, look.cpus[0].waited) == (None, None, None)


def test_without_the_cpus_times_there_is_no_load(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such file"):
        LoadFiles(_paths(tmp_path), lambda: 1.0)


def test_this_machines_own_files_are_read() -> None:
    files = LoadFiles(triggers=())
    try:
        first, second = files.read(), files.read()
    finally:
        files.close()
    assert second.seconds >= first.seconds
    assert first.cpus
