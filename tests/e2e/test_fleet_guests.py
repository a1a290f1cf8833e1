# SPDX-License-Identifier: Apache-2.0
"""A real guest without vcpud gets it: by Ansible's role, by pip and by cloud-init. `plug` works right after that.

The guest is as a cloud's image has it, without a network. What docs/fleets.md says is done word by word.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dist
import pytest
from kit.component.ansible import Played, play
from kit.e2e.ansible_guest import PLUGINS, reachable
from kit.e2e.machine import ROOT, Machine
from kit.lab import Cache, Vm, host
from kit.lab.cache import digest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

DEBS = sorted(ROOT.glob("build/deb/*.deb"))
GUEST: dict[str, Any] = {"guest": "debian12-cloud-amd64", "debs": None, "memory_mb": 512}
#: What vcpud needs of other people's, as pip gets it.
NEEDED = ("grpcio", "protobuf", "pyudev", "structlog", "typing-extensions")
#: What a package manager, Ansible and the system keep for themselves.
KEPT = re.compile(
    r"/(var/(lib/(dpkg|apt|systemd)|cache|log)|(root/)?\.(ansible|cache)|tmp|run|dev|proc|sys)(/|$)|/etc/\.pwd\.lock"
)
WITHIN = 900.0


def block(name: str) -> str:
    """The commands of docs/fleets.md that carry this mark."""
    page = (ROOT / "docs/fleets.md").read_text()
    (found,) = re.findall(rf"<!-- fleets: {name} -->\n```\w+\n(.*?)```\n", page, re.DOTALL)
    return str(found)


@contextmanager
def wheels() -> Iterator[Path]:
    """A directory with our wheels and what the guest's Python needs with them."""
    blocks = re.findall(r"^(?:\S+==.*\n)(?:    .*\n)*", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    pins = "".join(pin for pin in blocks if pin.split("==")[0] in NEEDED and "python_full_version >= " not in pin)

    def fetch(folder: Path) -> None:
        (folder / "pins.txt").write_text(pins)
        words = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--require-hashes"]
        words += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--dest", str(folder)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", *words]
        host.run([*pip, "--requirement", str(folder / "pins.txt")])

    with Cache().entry("guest-wheels", digest(1, pins), fetch) as entry:
        yield entry.path


def ours(folder: Path) -> list[Path]:
    dist.archives(folder)
    return sorted(folder.glob("vcpu_[pg]*.whl"))


def files(vm: Vm) -> set[str]:
    """All files of the guest's that somebody has put there."""
    listed = vm.shell("find / -xdev -not -name '*.pyc'", 120.0).splitlines()
    return {name for name in listed if not KEPT.match(name) and "/__pycache__" not in name}


def plugs(machine: Machine) -> None:
    """The agent is there, and does its work both ways."""
    ended = machine.vcpuctl("plug", "2")
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + machine.vm.shell("journalctl -b -u vcpud -n 40")
    assert machine.vcpuctl("unplug", "2").outcome == "done"


def played(vm: Vm, folder: Path, words: str, **options: Any) -> Played:
    """The role, on that guest."""
    (folder / "inventory.ini").write_text(f"guest {words}\n")
    task = {"name": "guest", "include_role": {"name": "vcpuctl.vcpu.vcpu_guest"}}
    book = [{"hosts": "all", "gather_facts": False, "tasks": [task], "vars": options}]
    settings = {"ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS), "ANSIBLE_PIPELINING": "1"}
    done = play(book, settings, folder, "-i", str(folder / "inventory.ini"), within=WITHIN)
    assert done.status == 0, done.words + vm.shell("journalctl -b -u vcpud -n 40")
    return done


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("way", ["package", "pip"])
def test_the_role_brings_the_agent_and_takes_all_of_it_away(
    way: str, machines: Callable[..., Machine], tmp_path: Path
) -> None:
    machine = machines(**GUEST)
    vm = machine.vm
    before = files(vm)
    with reachable(vm, tmp_path) as words, wheels() as needed:
        if way == "package":
            order = sorted((str(path) for path in DEBS if "vcpu-host" not in path.name), key=lambda n: "proto" not in n)
            options: dict[str, Any] = {"vcpu_guest_packages": order}
        else:
            more = [str(path) for path in needed.glob("*.whl")]
            options = {"vcpu_guest_wheels": [*map(str, ours(tmp_path / "wheels")), *more]}
            options["vcpu_guest_pip_arguments"] = "--no-index"
        first = played(vm, tmp_path, words, **options, vcpu_guest_require_port=True)
        assert first.stats["guest"]["changed"] > 0
        plugs(machine)
        again = played(vm, tmp_path, words, **options, vcpu_guest_require_port=True)
        assert again.stats["guest"]["changed"] == 0, again.words
        played(vm, tmp_path, words, vcpu_guest_state="absent")
        assert files(vm) - before == set()
        assert vm.shell("systemctl is-active vcpud || true").strip() == "inactive"
        gone = played(vm, tmp_path, words, vcpu_guest_state="absent")
        assert gone.stats["guest"]["changed"] == 0, gone.words


@pytest.mark.slow
@pytest.mark.long
def test_pip_brings_the_command_and_the_command_its_service_and_takes_it_away(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    machine = machines(**GUEST)
    vm = machine.vm
    before = files(vm)
    packed = io.BytesIO()
    with wheels() as needed, tarfile.open(fileobj=packed, mode="w") as tar:
        for wheel in (*ours(tmp_path), *needed.glob("*.whl")):
            tar.add(wheel, f"wheels/{wheel.name}")
    vm.put(packed.getvalue(), "/root/wheels.tar", 300.0)
    vm.shell("cd /root && tar -xf wheels.tar && rm wheels.tar", 60.0)
    # in the place of an index, which this guest does not reach
    offline = "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels; cd /root/wheels; set -e\n"
    said = vm.shell(offline + block("pip"), WITHIN)
    assert said.splitlines()[-1] == "vcpud runs", said
    plugs(machine)
    assert vm.shell("/opt/vcpud/bin/vcpud --install-service", 60.0) == ""
    assert "/opt/vcpud/bin/vcpud" in vm.shell("systemctl show -P ExecStart vcpud")
    vm.shell("/opt/vcpud/bin/vcpud --uninstall-service && rm -r /opt/vcpud /root/wheels", 60.0)
    assert files(vm) - before == set()
    assert vm.shell("systemctl is-active vcpud || true").strip() == "inactive"
    assert machine.vcpuctl("-q", "--timeout", "5", "plug").outcome != "done"


@pytest.mark.slow
@pytest.mark.long
def test_cloud_init_brings_the_agent_with_a_disk_that_carries_it(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    (tmp_path / "user-data").write_text(block("user-data"))
    for path in DEBS:
        if "vcpu-host" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    subprocess.run(["sh", "-ec", block("seed")], cwd=tmp_path, check=True, env={**os.environ})
    seed = ("-drive", f"file={tmp_path}/seed.iso,format=raw,if=virtio,readonly=on")
    machine = machines(cold=True, **GUEST, extra_args=seed)
    status = machine.vm.shell("cloud-init status --wait --long", WITHIN, 60.0)
    assert "status: done" in status, status + machine.vm.shell("cat /var/log/cloud-init-output.log")
    plugs(machine)
