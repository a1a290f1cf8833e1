# SPDX-License-Identifier: Apache-2.0
"""A host of libvirt: libvirtd, its QEMUs and, when asked for, its SSH server, in namespaces of their own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree as ET

from kit.lab import host, scratch
from kit.lab.cache import Cache
from kit.lab.errors import LabError, QmpError
from kit.lab.virt import root
from kit.lab.virt.daemon import Daemon
from kit.lab.virt.domain_xml import DomainSpec, Files, xml
from kit.lab.virt.ground import OWN, Ground
from kit.lab.virt.ssh import SshServer

#: The lab's own monitor commands begin so: libvirt gives each an id of its own, and keeps the rest as it is.
_MARK = "  "
_MONITOR_COMMAND = re.compile(
    r"virDomainQemuMonitorCommand(?:WithFiles)?:\d+ : .*?, cmd=(?P<command>.*?), (?:n?files|result)"
)


class LibvirtHost:
    """A machine with libvirtd. Use it as a context manager: its end is the end of all its processes.

    In ``folder``, ``shared`` and the lab's cache files have the same paths in the host as outside.
    """

    def __init__(
        self,
        suite: str = "sid",
        *,
        name: str = "hosta",
        shared: Path | None = None,
        cache: Cache | None = None,
        progress: host.Progress = host.quiet,
    ) -> None:
        """Describe it: a host of that suite (``root.SUITES``) and name.

        ``shared`` is a directory that hosts have in common, each with a folder of its name in it: see ``pair``.
        """
        self.suite, self.name, self.host_uuid = suite, name, str(uuid.uuid4())
        self.shared, self.cache, self._progress = shared, cache or Cache(), progress
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        scratch.sweep()
        with ExitStack() as stack:
            found = stack.enter_context(root.find(self.cache, self.suite, self._progress))
            #: The host's own directory.
            self.folder = self.shared / self.name if self.shared else stack.enter_context(scratch_folder())
            self.folder.mkdir(exist_ok=True)
            self.ground = Ground(found.layers, self.folder, self.name, [self.shared or self.folder, self.cache.root])
            stack.callback(self.ground.close)
            #: The host's own address, on a link that ``ground.cut`` cuts.
            self.address = self.ground.link()
            self._configure()
            self.daemon = Daemon(self.ground)
            self.daemon.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    @property
    def uri(self) -> str:
        """The host's libvirt by its unix socket, from outside."""
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"

    @property
    def uri_by_name(self) -> str:
        """The host's libvirt by TCP, for another host that knows it by its name: see ``pair``."""
        return f"qemu+tcp://{self.name}/system"

    @property
    def tcp_uri(self) -> str:
        """The host's libvirt by TCP, without a password."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def ssh_uri(self) -> str:
        """The host's libvirt by SSH, with a key of this run, and without a trace in the user's files."""
        options = f"keyfile={self._ssh.key}&command={self._ssh.client}&no_verify=1&no_tty=1"
        return f"qemu+ssh://root@{self.address}/system?{options}"

    def ssh(self, script: str) -> list[str]:
        """Return the words that run a script in the host by SSH, from outside."""
        return self._ssh.command(self.address, script)

    def end_ssh(self) -> None:
        """End all SSH connections at the host's side; new ones are taken."""
        self._ssh.end_connections()

    def knows(self, other: LibvirtHost, address: str) -> None:
        """Have this host find another, and its libvirt, at that address by its name."""
        with self.ground.path("/etc/hosts").open("a") as hosts:
            hosts.write(f"{address} {other.name}\n")

    def start_daemon(self) -> None:
        """Start libvirtd, and wait until it serves."""
        self.daemon.start()

    def stop_daemon(self) -> None:
        """Have libvirtd end in good order; VMs go on."""
        self.daemon.stop()

    def kill_daemon(self) -> None:
        """Kill libvirtd; VMs go on."""
        self.daemon.kill()

    def restart_daemon(self) -> None:
        """Stop and start libvirtd; VMs go on."""
        self.daemon.stop()
        self.daemon.start()

    def virsh(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run virsh in the host. Raises CommandError if that takes too long."""
        return self.ground.run(["virsh", "--quiet", *words], timeout)

    def ask(self, *words: str, timeout: float = 120.0) -> str:
        """Return what virsh says. Raises LabError if it fails."""
        done = self.virsh(*words, timeout=timeout)
        if done.returncode != 0:
            raise LabError(f"{self.name}: virsh {shlex.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def define(self, domain: str | DomainSpec) -> str:
        """Define a domain, by its XML or, without a disk, by its description; return its name."""
        text = xml(domain, self.files(domain)) if isinstance(domain, DomainSpec) else domain
        name = ET.fromstring(text).findtext("name")
        assert name is not None
        (self.folder_of(name) / "defined.xml").write_text(text)
        self.ask("define", f"{OWN}/{name}/defined.xml")
        return name

    def start(self, name: str, paused: bool = False) -> None:
        """Start a domain that is defined; ``paused``: no guest code runs."""
        self.ask("start", name, *(["--paused"] if paused else []))

    def destroy(self, name: str) -> None:
        """Pull a domain's plug."""
        self.ask("destroy", name)

    def run(self, spec: DomainSpec, paused: bool = True) -> str:
        """Define and start a domain without a disk; return its name."""
        name = self.define(spec)
        self.start(name, paused)
        return name

    def migrate(self, name: str, to: LibvirtHost, *options: str, timeout: float = 300.0) -> None:
        """Migrate a domain, live, to another host, which knows and is known by its name: see ``pair``.

        ``options`` are more of ``virsh migrate``. Raises LabError with libvirt's words; the domain goes on here.
        """
        to.folder_of(name)
        # --unsafe: libvirt takes no disk for safe whose cache is that of the lab's
        self.ask("migrate", "--live", "--p2p", "--unsafe", *options, name, to.uri_by_name, timeout=timeout)

    def xml(self, name: str, inactive: bool = False) -> ET.Element:
        """Return the domain's ``<domain>`` as it runs, or as it is defined."""
        return ET.fromstring(self.ask("dumpxml", name, *(["--inactive"] if inactive else [])))

    def record(self, name: str, inactive: bool = False) -> list[int]:
        """Return the ids of the vCPUs that libvirt calls enabled, in ascending order."""
        domain = self.xml(name, inactive)
        listed = domain.findall("vcpus/vcpu")
        if listed:
            return sorted(int(vcpu.attrib["id"]) for vcpu in listed if vcpu.attrib["enabled"] == "yes")
        count = domain.find("vcpu")
        assert count is not None
        return list(range(int(count.attrib.get("current") or count.text or "0")))

    def qmp(self, name: str, command: str, **arguments: Any) -> Any:
        """Execute a command on the domain's monitor through libvirt and return what it returns.

        Raises QmpError for QEMU's refusal, LabError for libvirt's.
        """
        request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        answer = json.loads(self.ask("qemu-monitor-command", name, _MARK + request))
        if "error" in answer:
            raise QmpError(answer["error"]["class"], answer["error"]["desc"])
        return answer["return"]

    def slots(self, name: str) -> list[int]:
        """Return the indexes of the slots in which QEMU has a vCPU, in ascending order."""
        return filled(self.qmp(name, "query-hotpluggable-cpus"))

    def pid(self, name: str) -> int:
        """Return the domain's QEMU, as this machine numbers it."""
        inside = self.ground.path(f"/run/libvirt/qemu/{name}.pid").read_text().strip()
        return self.ground.outside(int(inside))

    def monitor_commands(self) -> list[dict[str, Any]]:
        """Return all commands that clients, but for the lab, have sent to the monitor of any domain, in their order.

        libvirt's own, which it sends to serve other calls, are not among them.
        """
        said = [match["command"] for match in _MONITOR_COMMAND.finditer(self.log)]
        return [json.loads(command) for command in said if not command.startswith(_MARK)]

    def calls(self, function: str) -> list[str]:
        """Return the arguments of all calls of that function of the API by domain, as libvirtd tells of them.

        ``calls("virDomainSetVcpu")[0]`` ends with ``vcpumap='5' state=1 flags=0x1``.
        """
        return re.findall(rf": {re.escape(function)}:\d+ : (.*)", self.log)

    @property
    def log(self) -> str:
        """libvirtd's log: all calls of its API by domain (``virDomainSetVcpu``, ...), and its errors."""
        return (self.folder / "log/libvirtd.log").read_text(errors="replace")

    def qemu_log(self, name: str) -> Path:
        """Return the file of what the domain's QEMUs said, of all its lives on this host, from outside."""
        return self.folder / "log/qemu" / f"{name}.log"

    def forget_log(self, name: str) -> None:
        """Have the domain's next life begin a new log."""
        self.qemu_log(name).unlink(missing_ok=True)

    def folder_of(self, name: str) -> Path:
        """Return the directory of a domain's own files on this host, from outside, made if it is not there."""
        folder = self.folder / "domains" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def files(self, spec: DomainSpec) -> Files:
        """Return the files of a domain without a disk."""
        self.folder_of(spec.name)
        return Files(OWN / spec.name)

    def _configure(self) -> None:
        with self.ground.path("/etc/libvirt/libvirtd.conf").open("a") as conf:
            conf.write(f'host_uuid = "{self.host_uuid}"\n')
        with self.ground.path("/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        if self.shared is not None:
            with self.ground.path("/etc/libvirt/qemu.conf").open("a") as conf:
                conf.write(f'shared_filesystems = [ "{self.shared}" ]\n')

    @cached_property
    def _ssh(self) -> SshServer:
        return SshServer(self.ground)


def filled(slots: list[dict[str, Any]]) -> list[int]:
    """Return the indexes of the slots that have a vCPU, from what query-hotpluggable-cpus says, highest slot first."""
    return [index for index, slot in enumerate(reversed(slots)) if "qom-path" in slot]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a directory of this process that goes at the end."""
    folder = scratch.make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
