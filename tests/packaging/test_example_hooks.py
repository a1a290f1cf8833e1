# SPDX-License-Identifier: Apache-2.0
"""The hooks that the guest's package brings as examples, run with commands in place of the guest's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from debfile import Deb

_EXAMPLES = "/usr/share/doc/vcpu-guest/examples"


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A directory of commands, each of which notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("systemctl", "systemd-run", "logger"):
        _command(folder, name, f'echo {name} "$@" >>"{tmp_path}/called"')
    _command(folder, "getconf", "echo 4")
    return folder


def _command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _run(root: Path, commands: Path, hook: str, event: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = root / f"packaging/hooks/{event}.d/{hook}"
    words = ["sh", str(path), event, "3"]
    settings = {"PATH": f"{commands}:{os.environ['PATH']}", **environment}
    return subprocess.run(words, env=settings, capture_output=True, text=True, check=False)


def _called(tmp_path: Path) -> list[str]:
    path = tmp_path / "called"
    return path.read_text().splitlines() if path.exists() else []


def test_the_examples_are_in_the_package_and_nothing_of_them_is_switched_on(debs: dict[str, Deb], root: Path) -> None:
    held = debs["vcpu-guest"].files()
    hooks = {path.relative_to(root / "packaging/hooks") for path in (root / "packaging/hooks").glob("*.d/*")}
    assert len(hooks) == 5
    for hook in hooks:
        assert held[f"{_EXAMPLES}/hooks/{hook}"] == "-rw-r--r--"
    assert f"{_EXAMPLES}/keep-affinity.conf" in held
    assert not any("hooks.d" in name for name in held)


@pytest.mark.parametrize(
    ("has", "uses", "calls"),
    [
        (8, 1, ["systemd-run --quiet --collect ethtool -L eth0 combined 4"]),
        (2, 1, ["systemd-run --quiet --collect ethtool -L eth0 combined 2"]),
        (8, 4, []),
        (8, 8, []),
    ],
)
def test_queue_pairs_are_raised_to_what_the_device_has_and_the_cpus_are(
    root: Path, commands: Path, tmp_path: Path, has: int, uses: int, calls: list[str]
) -> None:
    for name, driver in (("eth0", "virtio_net"), ("eth1", "e1000")):
        (tmp_path / f"net/{name}/device").mkdir(parents=True)
        (tmp_path / f"drivers/{driver}").mkdir(parents=True)
        (tmp_path / f"net/{name}/device/driver").symlink_to(tmp_path / f"drivers/{driver}")
    shown = f"Pre-set maximums:\nRX: n/a\nCombined: {has}\nCurrent hardware settings:\nCombined: {uses}\n"
    _command(commands, "ethtool", f"printf '{shown}'")
    ended = _run(root, commands, "raise-net-queues", "post-online", NET=str(tmp_path / "net"))
    assert ended.returncode == 0, ended.stderr
    assert _called(tmp_path) == calls


def test_the_services_that_are_listed_are_restarted_and_not_reloaded(
    root: Path, commands: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list"
    assert _run(root, commands, "restart-services", "post-online", LIST=str(listed)).returncode == 0
    listed.write_text("# what counts CPUs once\nnginx.service\n\nphp-fpm.service\n")
    assert _run(root, commands, "restart-services", "post-online", LIST=str(listed)).returncode == 0
    assert _called(tmp_path) == ["systemctl try-restart -- nginx.service", "systemctl try-restart -- php-fpm.service"]


def test_a_service_that_does_not_restart_is_told_and_the_others_are_restarted(
    root: Path, commands: Path, tmp_path: Path
) -> None:
    _command(commands, "systemctl", f'echo "$3" >>"{tmp_path}/called"; [ "$3" != bad.service ]')
    (tmp_path / "list").write_text("bad.service\ngood.service\n")
    ended = _run(root, commands, "restart-services", "post-online", LIST=str(tmp_path / "list"))
    assert (ended.returncode, ended.stdout) == (1, "not restarted: bad.service\n")
    assert _called(tmp_path) == ["bad.service", "good.service"]


@pytest.mark.parametrize("event", ["post-online", "pre-offline"])
def test_a_line_for_the_journal_has_the_event_and_the_cpus(
    root: Path, commands: Path, tmp_path: Path, event: str
) -> None:
    assert _run(root, commands, "tell-log", event).returncode == 0
    (line,) = _called(tmp_path)
    assert line.startswith(f"logger -t vcpud-hook {event}: CPUs 3, online are ")
