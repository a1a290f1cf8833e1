# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kit.fakes.programs import FakePrograms, tasks_of, units_of
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.model import Environment
from vcpu_guest.kernel.event_source import NoEvents
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.machine import Machine
from vcpu_guest.main import build_parser, main
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.platforms.hotplug import KernelHotplug


@pytest.mark.parametrize("word", ["--lis", "--sys", "--log-l", "--vers", "--che"])
def test_the_beginning_of_an_option_is_none(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([f"{word}=info"])
    assert end.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def run(folder: Path, cpus: str) -> int:
    sysfs = Sysfs(folder / "sys")
    machine = Machine(
        sysfs=sysfs,
        platform=Acpi(),
        events=NoEvents(),
        hotplug=KernelHotplug(),
        environment=Environment,
        boot_id="b",
        arch="x86_64",
        kernel="6.12.0",
        tasks=tasks_of(folder),
        units=units_of(folder),
    )
    words = ["--config", str(folder / "conf"), "--programs", cpus]
    (folder / "conf").touch()
    return main(words, open_machine=lambda options: machine)


def test_who_would_be_without_a_cpu_is_printed_with_a_status_that_a_hook_can_refuse_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = FakeKernel(tmp_path / "sys", boot=(0, 1, 2, 3))
    programs = FakePrograms(tmp_path)
    assert (run(tmp_path, "3"), capsys.readouterr().out) == (0, "")
    programs.cgroup("/rt", cpus="3", partition="isolated")
    programs.unit("db.service", "[Service]\nCPUAffinity=3\n")
    programs.task(10, "3", comm=b"post\ngres")
    assert run(tmp_path, "3") == 3
    partition, unit, thread = capsys.readouterr().out.splitlines()
    assert partition == "the cpuset /rt (isolated) would have none of its CPUs 3"
    assert unit == "db.service needs CPUs 3 to start (CPUAffinity=)"
    assert thread == "1 threads are pinned to 3 alone: post\\ngres[10]"
    assert run(tmp_path, "1-2") == 0
    assert run(tmp_path, "x") == 2
    kernel.close()


@pytest.mark.parametrize("left_out", ["ssl", "rich"])
def test_the_agent_starts_and_logs_without_what_it_has_no_use_for(left_out: str, tmp_path: Path) -> None:
    (tmp_path / "rich.py").touch()  # as where the guest's administrator has it
    code = "import sys; from vcpu_guest import logs, main; main.main(['--check']); logs.info('x'); "
    code += f"sys.exit({left_out!r} in sys.modules)"
    (tmp_path / "conf").touch()
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, cwd=tmp_path, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1), ended.stderr
