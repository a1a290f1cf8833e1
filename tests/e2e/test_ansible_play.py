# SPDX-License-Identifier: Apache-2.0
"""Ansible over SSH: two hosts of six VMs each, from the first installation to vCPUs that go up and down and stay.

The hosts are roots of their own with an SSH server, in namespaces of their own; the VMs are fakes with the real vcpud.
"""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import collection
import dist
import pytest
from kit.component.ansible import Played, play
from kit.component.cli import stands
from kit.e2e.machine import Machine
from kit.fakes.fleet import FakeFleet, FleetVm, fake_fleet
from kit.fakes.sick import dead
from kit.lab import ansible
from kit.lab.virt.plain_host import PlainHost

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
DEBS = ROOT / "build/deb"
HOSTS = ("hosta", "hostb")
KINDS = ("down", "gone", "over", "same", "stays", "up")
VERSION = (ROOT / "packaging/debian/changelog").read_text().split("(")[1].split(")")[0]
#: How long a play may take on a busy machine.
WITHIN = 600.0


def tell(line: str) -> None:
    print(line, file=sys.stderr)


def deb(name: str) -> str:
    return str(DEBS / f"{name}_{VERSION}_all.deb")


@dataclass(frozen=True)
class Site:
    """The hosts, their VMs, and where the controller writes. ``program`` is its ansible-playbook, if not the usual."""

    hosts: dict[str, PlainHost]
    fleets: dict[str, FakeFleet]
    home: Path
    program: str | None = None

    def vm(self, host: str, kind: str) -> FleetVm:
        return self.fleets[host].vms[f"{host}-{kind}"]

    def play(self, *tasks: dict[str, Any], words: tuple[str, ...] = (), hosts: str = "all") -> Played:
        """Run these tasks on the hosts, by SSH."""
        inventory = self.home / "inventory.ini"
        lines = []
        for name, host in self.hosts.items():
            ssh = "-F none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR"
            at = f"ansible_host={host.address} ansible_user=root ansible_ssh_private_key_file={host.ssh.key}"
            lines.append(f"{name} {at} ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='{ssh}'\n")
        inventory.write_text("".join(lines))
        book = [{"hosts": hosts, "gather_facts": False, "tasks": list(tasks)}]
        settings = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.home / "cp")}
        return play(book, settings, self.home, "-i", str(inventory), *words, program=self.program, within=WITHIN)


def role(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "include_role": {"name": f"vcpuctl.vcpu.{name}"}, "vars": options}


def scaled(vms: str, **options: Any) -> dict[str, Any]:
    """A task for the VMs of each host, as an expression of Jinja has them."""
    return {"name": "scale", "vcpuctl.vcpu.vcpu_scale": {"vms": vms, **options}, "register": "scaled"}


def of_each(goals: dict[str, int]) -> str:
    """The map of a host's VMs, whose names begin with its own."""
    pairs = ", ".join(f"inventory_hostname + '-{kind}': {number}" for kind, number in goals.items())
    return "{{ {" + pairs + "} }}"


@contextmanager
def site(program: str | None = None) -> Iterator[Site]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vh", dir="/tmp")))
        hosts, fleets = {}, {}
        for name in HOSTS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vf", dir="/tmp")))
            names = [f"{name}-{kind}" for kind in KINDS]
            fleets[name] = stack.enter_context(fake_fleet(folder, names, "--maxcpus", "4"))
            host = PlainHost(name, [folder], tell)
            hosts[name] = stack.enter_context(host)
        yield Site(hosts, fleets, home, program)


def installed(monitors: Mapping[str, Mapping[str, Path]]) -> dict[str, Any]:
    """The task that installs vcpuctl and names the VMs, given as their monitors by host and by name."""
    vms = {host: {name: {"qmp": str(path)} for name, path in paths.items()} for host, paths in monitors.items()}
    packages = [deb("python3-vcpu-proto"), deb("vcpu-host")]
    return role(
        "vcpu_host", vcpu_host_packages=packages, vcpu_host_vms="{{ all_vms[inventory_hostname] }}", all_vms=vms
    )


def of_version(which: str, folder: Path) -> str | None:
    """The ansible-playbook of that version; None: the one that is beside this Python."""
    if which == "here":
        return None
    return ansible.find(which, collection.lay_out(folder), tell).program("ansible-playbook")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("which", ["here", "oldest", "newest"])
def test_two_hosts_are_set_up_and_their_vms_go_where_they_are_sent(  # long: one setting up serves all plays
    which: str, tmp_path: Path
) -> None:
    with site(of_version(which, tmp_path)) as here:
        monitors = {host: {name: vm.qmp for name, vm in fleet.vms.items()} for host, fleet in here.fleets.items()}
        install = installed(monitors)
        looked = here.play(install, words=("--check",))
        assert looked.status == 0, looked.words
        first = here.play(install)
        assert first.status == 0, first.words
        again = here.play(install)
        assert {host: again.stats[host]["changed"] for host in HOSTS} == dict.fromkeys(HOSTS, 0), again.words

        start = {"down": 3, "stays": 3}
        assert here.play(scaled(of_each(start))).status == 0
        goals = {"down": 1, "gone": 2, "over": 99, "same": 1, "stays": 1, "up": 4}
        with ExitStack() as ends:
            for host in HOSTS:
                stays = here.vm(host, "stays")
                stays.steer.call("x-fake-kernel-refuse", slot=1, errno=errno.EBUSY, online=False)
                ends.enter_context(dead(here.vm(host, "gone")))
            planned = here.play(scaled(of_each(goals), fail_on=["failed"]), words=("--check", "--diff"))
            for host in HOSTS:
                said = planned.task("scale", host)
                assert said["outcomes"] == named(
                    host, planned=["down", "same", "stays", "up"], refused=["over"], unreachable=["gone"]
                )
                assert said["diff"]["after"] == "".join(f"{host}-up: slot {slot} (vcpu-{slot})\n" for slot in (1, 2, 3))
                stands(here.vm(host, "up"), {0})
                stands(here.vm(host, "down"), {0, 1, 2})
            ended = here.play(scaled(of_each(goals)))
            assert ended.status == 2
            for host in HOSTS:
                said = ended.task("scale", host)
                assert (said["ended"], said["changed"]) == ("failed", True)
                assert said["outcomes"] == named(
                    host, done=["down", "same", "up"], partial=["stays"], refused=["over"], unreachable=["gone"]
                )
                (why,) = [each for each in said["vms"][f"{host}-stays"]["reasons"] if each["slot"] == 1]
                assert (why["who"], why["errno"]) == ("guest", "EBUSY")
                stands(here.vm(host, "down"), {0})
                stands(here.vm(host, "up"), {0, 1, 2, 3})
                stands(here.vm(host, "stays"), {0, 1})
        rest = {"down": 1, "same": 1, "stays": 2, "up": 4}
        settled = here.play(scaled(of_each(rest)))
        assert {host: settled.stats[host]["changed"] for host in HOSTS} == dict.fromkeys(HOSTS, 0), settled.words

        facts = {"name": "facts", "ansible.builtin.setup": {"gather_subset": ["!all", "!min", "local"]}}
        told = here.play(facts)
        for host in HOSTS:
            vms = told.task("facts", host)["ansible_facts"]["ansible_local"]["vcpuctl"]["vms"]
            assert {name: vm.get("online") for name, vm in vms.items()} == {
                f"{host}-{kind}": number
                for kind, number in {**dict.fromkeys(KINDS, 1), "gone": None, "stays": 2, "up": 4}.items()
            }
            assert vms[f"{host}-gone"]["trouble"] == "qemu-gone"

        foreign = "/etc/vcpuctl/vms.d/foreign.toml"
        for each in here.hosts.values():
            each.ground.path(foreign).write_text('# an administrator\'s\nqmp = "/run/foreign.sock"\n')
        gone = here.play(role("vcpu_host", vcpu_host_state="absent"))
        assert gone.status == 0, gone.words
        for each in here.hosts.values():
            others = {path.name for path in each.ground.path("/etc/vcpuctl").rglob("*")}
            assert others == {"vms.d", "foreign.toml"}, "somebody else's"
            left = ["/usr/bin/vcpuctl", "/etc/ansible/facts.d/vcpuctl.fact", "/opt/vcpuctl", "/var/cache/vcpuctl"]
            assert not [path for path in left if each.ground.path(path).exists()]
        assert {each["changed"] for each in here.play(role("vcpu_host", vcpu_host_state="absent")).stats.values()} == {
            0
        }


def named(host: str, **outcomes: list[str]) -> dict[str, list[str]]:
    return {outcome: [f"{host}-{kind}" for kind in kinds] for outcome, kinds in outcomes.items()}


def test_a_real_vm_on_each_of_two_hosts_goes_up_and_down_by_one_task(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vh", dir="/tmp")))
        vms = {name: machines() for name in HOSTS}
        hosts = {
            name: stack.enter_context(PlainHost(name, [machine.vm.qmp_socket.parent], tell))
            for name, machine in vms.items()
        }
        here = Site(hosts, {}, home)
        assert here.play(installed({name: {"vm": machine.vm.qmp_socket} for name, machine in vms.items()})).status == 0
        for number, slots in ((3, {0, 1, 2}), (1, {0})):
            for changed in (True, False):
                ended = here.play(scaled(f"{{{{ {{'vm': {number}}} }}}}"))
                for name, machine in vms.items():
                    said = ended.task("scale", name)
                    assert (said["outcomes"], said["changed"]) == ({"done": ["vm"]}, changed), ended.words
                    assert machine.online() == set(machine.filled()) == slots


def test_a_host_without_packages_gets_command_and_service_by_pip_and_a_second_run_changes_nothing(
    tmp_path: Path,
) -> None:
    dist.archives(tmp_path)
    wheels = sorted(map(str, (*tmp_path.glob("vcpu_proto-*.whl"), *tmp_path.glob("vcpu_guest-*.whl"))))
    # The host's own Python has what they need, and there is no index.
    options: dict[str, Any] = {"vcpu_guest_wheels": wheels, "vcpu_guest_pip_arguments": "--no-index --no-deps"}
    options["vcpu_guest_config"] = {"eject_gate": True}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vh", dir="/tmp")))
        host = stack.enter_context(PlainHost("hosta", [], tell))
        host.ask("python3", "-m", "venv", "--system-site-packages", "/opt/vcpud")
        here = Site({"hosta": host}, {}, home)
        first = here.play(role("vcpu_guest", **options))
        assert first.status == 0, first.words
        for path in ("/etc/systemd/system/vcpud.service", "/etc/udev/rules.d/60-vcpud.rules"):
            assert "Put here by vcpud --install-service" in host.ground.path(path).read_text()
        assert "eject_gate = true" in host.ground.path("/etc/vcpud/vcpud.conf").read_text()
        assert VERSION in host.ask("/opt/vcpud/bin/vcpud", "--version")
        again = here.play(role("vcpu_guest", **options))
        assert again.stats["hosta"]["changed"] == 0, again.words
        gone = here.play(role("vcpu_guest", vcpu_guest_state="absent"))
        assert gone.status == 0, gone.words
        for path in (
            "/opt/vcpud",
            "/etc/vcpud",
            "/etc/systemd/system/vcpud.service",
            "/etc/udev/rules.d/60-vcpud.rules",
        ):
            assert not host.ground.path(path).exists()
