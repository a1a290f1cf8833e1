# SPDX-License-Identifier: Apache-2.0
"""The host's service, its socket and its group, as the package installs them."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from vcpu_host.sharing.hub import LAST_WORDS

if TYPE_CHECKING:
    from debfile import Deb, Run

_UNITS = ("vcpuctl.service", "vcpuctl.socket")


@pytest.fixture
def tree(debs: dict[str, Deb], tmp_path: Path) -> Path:
    """The host package's files, unpacked."""
    return debs["vcpu-host"].extract(tmp_path / "tree")


@pytest.fixture
def units(tree: Path) -> list[Path]:
    """Service and socket, with a command that is there on this machine: systemd refuses to judge one that is not."""
    found = [tree / "usr/lib/systemd/system" / name for name in _UNITS]
    text = found[0].read_text()
    assert "ExecStart=/usr/bin/vcpuctl serve" in text
    assert (tree / "usr/bin/vcpuctl").exists()
    if not Path("/usr/bin/vcpuctl").exists():
        found[0].write_text(text.replace("/usr/bin/vcpuctl", "/bin/true"))
    return found


def test_systemd_finds_no_fault_in_service_and_socket(units: list[Path], run: Run) -> None:
    run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units))


def test_the_service_is_exposed_to_the_degree_of_two_or_less(units: list[Path], run: Run) -> None:
    # The threshold is the exposure times ten.
    run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(units[0]))


def test_root_and_the_group_that_the_package_makes_may_use_the_socket_and_nobody_else(tree: Path) -> None:
    socket = configparser.ConfigParser(strict=False)
    socket.read(tree / "usr/lib/systemd/system/vcpuctl.socket")
    assert socket["Socket"]["ListenStream"] == "/run/vcpuctl.sock"
    assert (socket["Socket"]["SocketMode"], socket["Socket"]["SocketGroup"]) == ("0660", "vcpuctl")
    assert "g vcpuctl -" in (tree / "usr/lib/sysusers.d/vcpuctl.conf").read_text()


def test_systemd_waits_for_the_last_words_of_what_is_under_way_when_it_stops_the_service() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(Path(__file__).parents[2] / "packaging/systemd/vcpuctl.service")
    # What was asked for, what the autoscaler does, and what came by a VM's own socket.
    assert float(unit["Service"]["TimeoutStopSec"].removesuffix("s")) > 3 * LAST_WORDS


def test_installing_makes_the_group_and_enables_and_starts_nothing(
    debs: dict[str, Deb], run: Run, tmp_path: Path
) -> None:
    run("dpkg-deb", "--control", str(debs["vcpu-host"].path), str(tmp_path))
    postinst = (tmp_path / "postinst").read_text()
    assert "systemd-sysusers" in postinst
    assert "deb-systemd-helper enable" not in postinst
    assert "start" not in postinst.replace("restart", "")
