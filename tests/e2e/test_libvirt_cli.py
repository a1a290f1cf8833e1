# SPDX-License-Identifier: Apache-2.0
"""Finding domains and giving them the agent's channel, on real libvirts; their guests never run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit import documents
from kit.lab import Cache
from kit.lab.virt import client
from kit.lab.virt.domain_xml import DomainSpec, Vcpu, xml
from kit.lab.virt.libvirt_host import LibvirtHost
from kit.until import until

pytestmark = pytest.mark.e2e

_PORT = "org.vcpuctl.agent.0"
_SERIAL = "<controller type='virtio-serial'/>"
#: Room for a controller that is plugged while the domain runs.
_ROOM = "<controller type='pci' index='0' model='pcie-root'/>" + "<controller type='pci' model='pcie-root-port'/>" * 3


@dataclass
class Site:
    """A host of libvirt, and vcpuctl outside of it."""

    host: LibvirtHost
    environment: Mapping[str, str]

    def vcpuctl(self, *words: str, uri: str | None = "", status: int = 0) -> str:
        """Run it on the host's libvirt, which must end so; None: without --connect. Return what it wrote."""
        connect = [] if uri is None else ["--connect", uri or self.host.uri]
        done = subprocess.run(
            [sys.executable, "-m", "vcpu_host.cli.main", *connect, *words],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        documents.check_output(done.stdout)
        return done.stdout + done.stderr

    def json(self, *words: str, uri: str | None = "", status: int = 0) -> dict[str, Any]:
        """Return the document that it wrote."""
        document: dict[str, Any] = json.loads(self.vcpuctl("-o", "json", *words, uri=uri, status=status))
        return document

    def channels(self, name: str) -> list[str]:
        """Return which ports QEMU has, by their names."""
        found = self.host.qmp(name, "qom-list", path="/machine/peripheral")
        ports = [each["name"] for each in found if each["type"] == "child<virtserialport>"]
        return [self.host.qmp(name, "qom-get", path=f"/machine/peripheral/{port}", property="name") for port in ports]


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    with client.find(Cache()) as found:
        yield found


@pytest.fixture
def site(environment: Mapping[str, str], tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Makes the one host of a test; vms.d is this test's own."""
    hosts: list[LibvirtHost] = []

    def make(suite: str) -> Site:
        hosts.append(LibvirtHost(suite))
        return Site(hosts[-1].__enter__(), {**environment, "XDG_CONFIG_HOME": str(tmp_path)})

    yield make
    for host in hosts:
        host.__exit__()


def _transient(host: LibvirtHost, spec: DomainSpec) -> None:
    (host.folder_of(spec.name) / "it.xml").write_text(xml(spec, host.files(spec)))
    host.ask("create", "--paused", f"{host.files(spec).folder}/it.xml")


@pytest.mark.parametrize("suite", ["sid", pytest.param("bookworm", marks=pytest.mark.slow)])
def test_domains_are_found_with_their_vcpus_and_channel_and_the_command_that_adds_them_works(
    site: Callable[[str], Site], suite: str, tmp_path: Path
) -> None:
    here = site(suite)
    here.host.run(DomainSpec(name="runs"))
    here.host.define(DomainSpec(name="is off", agent=False, vcpus=(Vcpu(0, hotpluggable=False), Vcpu(5), Vcpu(3))))
    _transient(here.host, DomainSpec(name="passes"))

    found = {each["name"]: each for each in here.json("vms")["domains"]}
    told = {
        name: [each[key] for key in ("state", "persistent", "vcpus", "most_vcpus", "channel", "connected")]
        for name, each in found.items()
    }
    assert told == {
        "is off": ["shutoff", True, 3, 16, False, None],
        "passes": ["paused", False, 1, 16, True, False],
        "runs": ["paused", True, 1, 16, True, False],
    }
    assert [reason["code"] for reason in found["is off"]["lacks"]] == ["no-channel"]

    add = found["runs"]["add"]
    vms_d = tmp_path / "vcpuctl/vms.d"
    command = add["command"].replace(os.path.dirname(add["file"]), str(vms_d))
    subprocess.run(["sh", "-c", command], check=True)
    assert tomllib.loads((vms_d / "runs.toml").read_text()) == {"libvirt": here.host.uri, "domain": "runs"}
    again = {each["name"]: each for each in here.json("vms")["domains"]}
    assert (again["runs"]["configured"], again["runs"]["add"]) == (["runs"], None)
    assert "1 plugged, 16 possible" in here.vcpuctl("--vm", "runs", "list", uri=None)
    assert here.host.monitor_commands()
    asked = len(here.host.monitor_commands())
    here.vcpuctl("vms")
    assert len(here.host.monitor_commands()) == asked  # which would taint every domain


def test_domains_are_found_on_other_hosts(site: Callable[[str], Site]) -> None:
    here = site("sid")
    here.host.run(DomainSpec(name="d1"))
    for uri in (here.host.tcp_uri, here.host.ssh_uri):
        document = here.json("vms", uri=uri)
        assert [each["name"] for each in document["domains"]] == ["d1"]
        assert f'libvirt = "{uri}"' in document["domains"][0]["add"]["command"]


@pytest.mark.parametrize("suite", ["sid", pytest.param("bookworm", marks=pytest.mark.slow)])
def test_the_channel_is_added_live_and_for_good_and_not_twice(site: Callable[[str], Site], suite: str) -> None:
    here = site(suite)
    other = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    here.host.run(DomainSpec(name="d1", agent=False, devices=(other,)))
    here.host.define(DomainSpec(name="off", agent=False))
    _transient(here.host, DomainSpec(name="passes", agent=False, devices=(_SERIAL,)))

    assert here.json("channel", "--domain", "d1")["running"] == {"channel": False, "added": False, "reason": None}
    assert here.channels("d1") == ["org.qemu.guest_agent.0"]
    new, there = ({"channel": True, "added": added, "reason": None} for added in (True, False))
    for name, running, persistent in (("d1", 1, 1), ("off", 0, 1), ("passes", 1, 0)):
        for expected in (new, there):
            ended = here.json("channel", "--domain", name, "--apply")
            assert ended["running"] == (expected if running else None)
            assert ended["persistent"] == (expected if persistent else None)
    assert sorted(here.channels("d1")) == ["org.qemu.guest_agent.0", _PORT]
    assert here.channels("passes") == [_PORT]
    here.host.start("off", paused=True)
    assert here.channels("off") == [_PORT]
    here.host.destroy("d1")
    here.host.start("d1", paused=True)
    assert sorted(here.channels("d1")) == ["org.qemu.guest_agent.0", _PORT]


@pytest.mark.parametrize(
    ("suite", "room", "words"),
    [
        ("sid", True, ""),
        ("sid", False, "No more available PCI slots"),
        pytest.param("bookworm", True, "'virtio-serial' controller cannot be hot plugged", marks=pytest.mark.slow),
    ],
)
def test_a_domain_without_a_controller_gets_one_where_libvirt_can(
    site: Callable[[str], Site], suite: str, room: bool, words: str
) -> None:
    here = site(suite)
    here.host.run(DomainSpec(name="d1", agent=False, devices=(_ROOM,) if room else ()))
    ended = here.json("channel", "--domain", "d1", "--apply", status=6 if words else 0)
    assert ended["persistent"]["added"]
    assert ended["running"]["added"] is not bool(words)
    if words:
        assert words in ended["running"]["reason"]["text"]
        assert "start it again" in ended["running"]["reason"]["hint"]
        again = here.json("channel", "--domain", "d1", "--apply", status=6)  # it still lacks it, and so it says
        assert again["running"]["reason"] == ended["running"]["reason"]
        assert not again["persistent"]["added"]
        here.host.destroy("d1")
        here.host.start("d1", paused=True)
    assert here.channels("d1") == [_PORT]


def test_the_element_as_it_is_printed_is_what_virsh_takes(site: Callable[[str], Site]) -> None:
    here = site("sid")
    here.host.run(DomainSpec(name="d1", agent=False, devices=(_SERIAL,)))
    printed = here.vcpuctl("channel", "--domain", "d1").splitlines()[0]
    (here.host.folder_of("d1") / "channel.xml").write_text(printed)
    folder = here.host.files(DomainSpec(name="d1")).folder
    here.host.ask("attach-device", "d1", f"{folder}/channel.xml", "--live", "--config")
    ended = here.json("channel", "--domain", "d1", "--apply")
    assert [ended[key]["channel"] and not ended[key]["added"] for key in ("running", "persistent")] == [True, True]


def test_domains_take_part_in_commands_for_many_vms_with_or_without_a_file(
    site: Callable[[str], Site], tmp_path: Path
) -> None:
    here = site("sid")
    for name in ("d1", "d2", "d3"):
        here.host.run(DomainSpec(name=name))
    _name(tmp_path, "one", here.host.uri, "d1")
    _name(tmp_path, "two", here.host.tcp_uri, "d2")
    listed = here.json("--all", "list", uri=None)
    assert [(each["vm"], each["document"]["vm"]["name"]) for each in listed["vms"]] == [("one", "d1"), ("two", "d2")]

    goals = tmp_path / "goals.toml"
    beside = f'[vms.three]\nvcpus = 3\nlibvirt = "{here.host.uri}"\ndomain = "d3"\n'
    goals.write_text(f"[vms]\none = 2\n{beside}")
    ended = here.json("apply", str(goals), uri=None, status=3)
    # A guest that does not run has no agent to ask, so that nothing is begun.
    assert [(each["vm"], each["exit_status"]) for each in ended["vms"]] == [("one", 3), ("three", 3)]
    assert [here.host.record(name) for name in ("d1", "d2", "d3")] == [[0], [0], [0]]

    goals.write_text(f'{beside}[vms.again]\nvcpus = 4\nlibvirt = "{here.host.uri}"\ndomain = "d3"\n')
    assert "three and again are one VM" in here.vcpuctl("apply", str(goals), uri=None, status=2)


async def test_the_service_keeps_domains_and_answers_for_them(site: Callable[[str], Site], tmp_path: Path) -> None:
    here = site("sid")
    here.host.run(DomainSpec(name="d1"))
    _name(tmp_path, "one", here.host.uri, "d1")
    _name(tmp_path, "two", here.host.uri, "nobody")
    file = tmp_path / "vcpuctl.prom"
    words = [sys.executable, "-m", "vcpu_host.cli.main", "serve"]
    words += ["--socket", str(tmp_path / "serve"), "--metrics-file", str(file)]
    service = await asyncio.create_subprocess_exec(*words, env={**os.environ, **here.environment})
    try:
        await until(lambda: file.exists() and 'vcpuctl_vm_up{vm="one"} 1.0' in file.read_text())
        assert 'reason="no-such-domain",vm="two"' in file.read_text()
        assert here.json("--vm", "one", "list", uri=None)["vm"]["name"] == "d1"
        here.host.restart_daemon()
        await until(lambda: 'reason="libvirt-gone",vm="one"' in file.read_text())
        await until(lambda: 'vcpuctl_vm_up{vm="one"} 1.0' in file.read_text())
    finally:
        service.terminate()
        assert await service.wait() == 0


def _name(folder: Path, name: str, uri: str, domain: str) -> None:
    vms_d = folder / "vcpuctl/vms.d"
    vms_d.mkdir(parents=True, exist_ok=True)
    (vms_d / f"{name}.toml").write_text(f'libvirt = "{uri}"\ndomain = "{domain}"\n')


def test_what_is_no_domain_is_told(site: Callable[[str], Site]) -> None:
    here = site("sid")
    assert "no domain with matching name 'nobody'" in here.vcpuctl("channel", "--domain", "nobody", status=2)
    assert "QEMU's VMs" in here.vcpuctl("vms", uri="test:///default", status=2)
