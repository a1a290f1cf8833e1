# SPDX-License-Identifier: Apache-2.0
"""The agent's service and its udev rule, as the package installs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from vcpu_guest.kernel.load import PATHS as LOAD_PATHS
from vcpu_guest.kernel.procfs import COMMAND_LINE_PATHS
from vcpu_guest.platforms.rtas import LOG_PATHS

if TYPE_CHECKING:
    from debfile import Deb, Run

PORT = "org.vcpuctl.agent.0"


@pytest.fixture
def tree(debs: dict[str, Deb], tmp_path: Path) -> Path:
    """The guest package's files, unpacked."""
    return debs["vcpu-guest"].extract(tmp_path / "tree")


@pytest.fixture
def unit(tree: Path) -> Path:
    """The service, with a command that is there on this machine: systemd refuses to judge one that is not."""
    text = (tree / "usr/lib/systemd/system/vcpud.service").read_text()
    command = re.search(r"^ExecStart=[-@:+!]*(\S+)", text, re.MULTILINE)
    assert command is not None
    path = tree / "vcpud.service"
    if not Path(command[1]).exists():
        assert (tree / command[1].lstrip("/")).exists(), f"the package does not hold {command[1]}"
        text = text.replace(command[1], "/bin/true")
    path.write_text(text)
    return path


def test_systemd_finds_no_fault_in_the_service(unit: Path, run: Run) -> None:
    run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit))


def test_the_service_is_exposed_to_the_degree_of_two_or_less(unit: Path, run: Run) -> None:
    # The threshold is the exposure times ten.
    run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit))


def test_the_service_lives_and_dies_with_its_port_and_is_enabled_by_nothing_else(tree: Path) -> None:
    text = (tree / "usr/lib/systemd/system/vcpud.service").read_text()
    device = "dev-virtio\\x2dports-" + PORT.replace("-", "\\x2d") + ".device"
    assert re.search(rf"^BindsTo=.*{re.escape(device)}", text, re.MULTILINE)
    assert re.search(rf"^After=.*{re.escape(device)}", text, re.MULTILINE)
    assert not re.search(r"^\[Install\]", text, re.MULTILINE)


def test_the_rule_asks_for_the_service_beside_what_others_ask_for(tree: Path) -> None:
    rule = (tree / "usr/lib/udev/rules.d/60-vcpud.rules").read_text()
    assert f'ATTR{{name}}=="{PORT}"' in rule
    assert 'ENV{SYSTEMD_WANTS}+="vcpud.service"' in rule


def test_the_service_sees_of_proc_what_the_agent_reads_there_and_no_more(tree: Path) -> None:
    text = (tree / "usr/lib/systemd/system/vcpud.service").read_text()
    assert "ProcSubset=pid" in text
    assert f"BindReadOnlyPaths=-/proc/cmdline:{COMMAND_LINE_PATHS[0]}" in text
    assert f"BindReadOnlyPaths=-/proc/powerpc/rtas:{Path(LOG_PATHS[0]).parent}" in text
    for sandbox, path in LOAD_PATHS.values():
        assert f"{path}:{sandbox}" in text
    # Of the load one file is to be written to: it takes nothing but triggers, which are the writer's own.
    (writable,) = re.findall(r"^BindPaths=(.*)$", text, re.MULTILINE)
    assert writable == f"-{LOAD_PATHS['cpu'][1]}:{LOAD_PATHS['cpu'][0]}"
