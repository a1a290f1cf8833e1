# SPDX-License-Identifier: Apache-2.0
"""vcpud as a service without a package, where the system runs: what systemd and udev are told, and when nothing is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from vcpu_guest import __version__, install
from vcpu_guest.errors import InstallError

SETTLE = "udevadm settle --timeout=30"
RELOAD = [
    "systemctl daemon-reload",
    "udevadm control --reload",
    "udevadm trigger --action=change --subsystem-match=virtio-ports",
    SETTLE,
]
#: How many seconds the machine is up.
UP = 86400.0
START, RESTART = "systemctl start vcpud.service", "systemctl try-restart vcpud.service"
RESET = "systemctl reset-failed vcpud.service"


@dataclass
class System:
    """A systemd that knows this of the service. ``ran`` are the commands that change something.

    ``began`` is when its process did, in seconds from now; ``fails`` is a command that does.
    """

    root: Path
    properties: dict[str, str] = field(
        default_factory=lambda: {"LoadState": "not-found", "NeedDaemonReload": "no", "ActiveState": "inactive"}
    )
    began: float | None = None
    fails: str = ""
    ran: list[str] = field(default_factory=list)

    def run(self, *command: str) -> str:
        words = " ".join(command)
        if command[:2] == ("systemctl", "show"):
            begun = 0 if self.began is None else int((UP + self.began) * 1e6)
            told = {**self.properties, "ExecMainStartTimestampMonotonic": str(begun)}
            return "".join(f"{key}={value}\n" for key, value in sorted(told.items()))
        if words == self.fails:
            raise InstallError(f"{words}: no")
        self.ran.append(words)
        if words == RELOAD[0]:
            self.properties |= {"LoadState": "loaded", "NeedDaemonReload": "no"}
        if words == RESTART or (words == START and self.properties["ActiveState"] != "active"):
            self.properties["ActiveState"], self.began = "active", 0.0
        return ""

    def install(self) -> list[str]:
        """Call it, and return what it says; ``ran`` has what it ran."""
        self.ran.clear()
        return list(install.install(str(self.root)))

    def uninstall(self) -> list[str]:
        """The same of taking it away."""
        self.ran.clear()
        return list(install.uninstall(str(self.root)))

    @property
    def unit(self) -> Path:
        return self.root / install.UNIT.lstrip("/")


@pytest.fixture
def system(image: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A machine that runs, with the agent's port."""
    here = System(image)
    (image / "port").touch()
    monkeypatch.setattr(install, "DEFAULT_PORT", str(image / "port"))
    monkeypatch.setattr(install.Place, "boots", True)
    monkeypatch.setattr(install, "time", SimpleNamespace(time=time.time, monotonic=lambda: UP))
    monkeypatch.setattr(install, "_run", here.run)
    return here


@pytest.fixture
def settled(system: System) -> System:
    """One on which all was done, an hour ago."""
    assert system.install()[-1] == "vcpud runs"
    assert system.ran == [*RELOAD, START]
    hour_ago = time.time() - 3600
    os.utime(system.unit, (hour_ago, hour_ago))
    system.began = -3500.0
    return system


def test_where_all_is_settled_nothing_is_said_and_nothing_done(settled: System) -> None:
    for state in ("active", "activating", "reloading"):
        settled.properties["ActiveState"] = state
        assert (settled.install(), settled.ran) == ([], [])
    (settled.root / "port").unlink()
    settled.properties["ActiveState"], settled.began = "inactive", None
    assert (settled.install(), settled.ran) == ([], [])


def test_a_udev_that_others_keep_busy_is_waited_for_and_hinders_nothing(system: System) -> None:
    system.fails = SETTLE
    assert system.install()[-1] == "vcpud runs"
    assert system.ran == [*RELOAD[:-1], START]
    assert system.uninstall()


@pytest.mark.parametrize("fails", [*RELOAD[:-1], START])
def test_what_a_first_run_has_not_seen_to_its_end_a_second_one_does(system: System, fails: str) -> None:
    system.fails = fails
    with pytest.raises(InstallError):
        system.install()
    system.fails = ""
    assert system.install() == ["vcpud runs"]
    assert system.ran == [*RELOAD, START]
    assert (system.install(), system.ran) == ([], [])


@pytest.mark.parametrize(
    "differs", [{"LoadState": "not-found"}, {"NeedDaemonReload": "yes"}, {"ActiveState": "failed"}, {"ActiveState": ""}]
)
def test_what_systemd_does_not_have_as_it_should_is_set_right(settled: System, differs: dict[str, str]) -> None:
    settled.properties |= differs
    assert settled.install() == ["vcpud runs"]
    assert settled.ran == [*RELOAD, START]


def test_a_systemd_that_tells_less_has_more_done_and_nothing_missed(settled: System) -> None:
    settled.properties = {"ActiveState": "active"}
    assert settled.install() == ["vcpud runs"]
    assert settled.ran == [*RELOAD, START]


def test_a_process_from_before_the_unit_gives_way_to_a_new_one_once(settled: System) -> None:
    settled.began = -3700.0
    assert settled.install() == ["vcpud runs"]
    assert settled.ran == [*RELOAD, RESTART, START]
    assert (settled.install(), settled.ran) == ([], [])


def test_a_unit_with_a_time_that_is_still_to_come_does_not_start_the_service_anew_for_ever(settled: System) -> None:
    later = time.time() + 3600
    os.utime(settled.unit, (later, later))
    assert (settled.install(), settled.ran) == ([], [])


def test_a_newer_version_takes_the_place_of_the_one_that_runs(settled: System) -> None:
    settled.unit.write_text(settled.unit.read_text().replace(f"({__version__})", "(0.0.9)"))
    assert settled.install() == [f"wrote {settled.unit}", "vcpud runs"]
    assert settled.ran == [*RELOAD, RESTART, START]


def test_without_the_port_nothing_is_started_and_that_is_told_once(system: System) -> None:
    (system.root / "port").unlink()
    assert system.install()[-1].startswith("vcpud starts when its port appears")
    assert system.ran == RELOAD
    assert (system.install(), system.ran) == ([], [])


def test_where_systemd_does_not_run_it_is_told_that_nothing_was_started(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as below another init, or in a root that somebody has changed to."""
    monkeypatch.setattr(install.Place, "is_here", True)
    monkeypatch.setattr(install, "_BOOTED", str(image / "run/systemd/system"))
    told = list(install.install(str(image)))
    assert told[-1] == "systemd does not run here: vcpud starts where this system boots with it"
    assert list(install.install(str(image))) == []


def test_a_package_that_has_come_meanwhile_has_its_service_started_in_the_place_of_ours(settled: System) -> None:
    """udev tells of a port no more than once, and that had ours started."""
    package = settled.root / "usr/lib/systemd/system/vcpud.service"
    package.parent.mkdir(parents=True)
    package.touch()
    assert settled.uninstall()[-1] == "vcpud runs, as its package has it"
    assert settled.ran == ["systemctl stop vcpud.service", *RELOAD, RESET, START]
    assert (settled.uninstall(), settled.ran) == ([], [])
