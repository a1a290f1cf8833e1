# SPDX-License-Identifier: Apache-2.0
"""A domain with a guest in it, and the lab's ways of looking at it that share nothing with the product."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from kit.lab.errors import LabError, VmDiedError, WaitTimeoutError
from kit.lab.qmp import Qmp
from kit.lab.record import Record
from kit.lab.shell import GRACE, Shell
from kit.lab.virt.domain_xml import CONSOLE, MONITOR, SHELL, DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost, filled
from kit.lab.vm import GUEST_CPUS, GuestCpu, parse_cpus

T = TypeVar("T")


class Domain:
    """A running domain on a host. ``close`` lets go of it; it ends with its host, or by ``destroy``."""

    def __init__(self, host: LibvirtHost, spec: DomainSpec) -> None:
        """Take up the domain of that spec, which runs on that host."""
        self.spec, self.name = spec, spec.name
        self._attach(host)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the domain, which goes on as it is."""
        self._shell.close()
        if self._recording is not None:
            self._qmp.close()
            self._recording.kill()
            self._recording.wait()
            self._record.join(5.0)

    def end(self) -> None:
        """Let go of the domain and pull its plug, if it still runs and its libvirtd is there."""
        self.close()
        self.host.virsh("destroy", self.name)

    def moved(self, host: LibvirtHost) -> None:
        """Take the domain up anew, on the host to which it has moved, or in the new QEMU that it has been given."""
        self.close()
        self._attach(host)

    def _attach(self, host: LibvirtHost) -> None:
        self.host = host
        folder = host.folder_of(self.name)
        self._recording: subprocess.Popen[bytes] | None = None
        if self.spec.record:
            log = host.qemu_log(self.name)
            follow = ["setpriv", "--pdeathsig", "KILL", "--", "tail", "--lines=+1", "--follow", str(log)]
            self._recording = subprocess.Popen(follow, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            assert self._recording.stdout is not None
            self._record = Record(self._recording.stdout)
            self._qmp = Qmp(folder / MONITOR, tail=self._record.tail)
        self._shell = Shell(folder / SHELL, tail=self._tail)

    def shell(self, command: str, timeout: float = 10.0, grace: float = GRACE) -> str:
        """Run a command in the guest as root; see ``lab.shell.Shell.run``."""
        return self._shell.run(command, timeout, grace)

    def put(self, data: bytes, path: str, timeout: float = 60.0) -> None:
        """Write a file in the guest; see ``lab.shell.Shell.put``."""
        self._shell.put(data, path, timeout)

    def wait_shell(self, timeout: float = 180.0) -> None:
        """Wait until the guest's shell answers, after a boot or reboot."""
        self._shell.wait(timeout)

    def guest_cpus(self, timeout: float = 60.0) -> dict[str, GuestCpu]:
        """Return the guest's CPUs by name (``cpu0``, ...), with what its firmware calls each."""
        return parse_cpus(self.shell(GUEST_CPUS, timeout))

    def online(self) -> list[int]:
        """Return the slots whose CPUs are online in the guest, in ascending order: by what ACPI calls them."""
        paths = [cpu["path"] for cpu in self.guest_cpus().values() if cpu["online"]]
        return sorted(int(path.rpartition(".C")[2], 16) for path in paths)

    def slots(self) -> list[int]:
        """Return the slots in which QEMU has a vCPU, in ascending order: by the lab's own monitor, if there is one."""
        if self._recording is not None:
            return filled(self._qmp.execute("query-hotpluggable-cpus"))
        return self.host.slots(self.name)

    def record(self, inactive: bool = False) -> list[int]:
        """Return the ids of the vCPUs that libvirt calls enabled, in ascending order."""
        return self.host.record(self.name, inactive)

    @property
    def pid(self) -> int:
        """The domain's QEMU, as this machine numbers it."""
        return self.host.pid(self.name)

    @property
    def qmp(self) -> Qmp:
        """The lab's own monitor, which libvirt knows nothing of. Raises LabError without ``spec.record``."""
        if self._recording is None:
            raise LabError(f"{self.name} has no monitor for the lab: it was described without a record")
        return self._qmp

    @property
    def kernel_log(self) -> list[tuple[float, str]]:
        """The lines on the console in this process, timed by QEMU on the clock of time.monotonic."""
        return self._recorded().kernel_log

    def qmp_commands(self) -> list[tuple[float, dict[str, Any]]]:
        """Every QMP command that QEMU received on any monitor, on the clock of ``kernel_log``.

        The lab's own carry an id ``lab-N``, libvirt's ``libvirt-N``.
        """
        return self._recorded().commands

    def wait_kernel(self, regex: str, timeout: float = 10.0, *, since: float = 0.0) -> tuple[float, str]:
        """The first line of the kernel log, not older than ``since``, that the regex is found in.

        Raises WaitTimeoutError, VmDiedError.
        """
        pattern = re.compile(regex)
        return self._wait(lambda: self.kernel_log, pattern.search, f"the console: {regex!r}", timeout, since)

    def wait_command(self, execute: str, timeout: float = 60.0, *, since: float = 0.0) -> tuple[float, dict[str, Any]]:
        """The first QMP command of that name, not older than ``since``, that QEMU has received: raises as above."""
        return self._wait(
            self.qmp_commands, lambda said: said.get("execute") == execute, f"QEMU's monitor: {execute}", timeout, since
        )

    def _wait(
        self,
        items: Callable[[], list[tuple[float, T]]],
        wanted: Callable[[T], object],
        what: str,
        timeout: float,
        since: float,
    ) -> tuple[float, T]:
        record = self._recorded()

        def hits() -> list[tuple[float, T]]:
            return [item for item in items() if item[0] >= since and wanted(item[1])]

        record.wait(lambda: bool(hits()) or record.ended, timeout)
        found = hits()
        if found:
            return found[0]
        if record.ended:
            raise VmDiedError(f"QEMU's log ended before {what}\n{record.tail()}")
        raise WaitTimeoutError(f"not within {timeout:.1f} s: {what}\n{record.tail()}")

    def collect(self, dest: Path) -> None:
        """Write what a failure leaves to look at: logs of libvirtd and QEMU, the console, XML, the guest's journal."""
        dest.mkdir(parents=True, exist_ok=True)
        (dest / "libvirtd.log").write_text(self.host.log)
        (dest / "qemu.log").write_bytes(self.host.qemu_log(self.name).read_bytes())
        (dest / "console.log").write_bytes((self.host.folder_of(self.name) / CONSOLE).read_bytes())
        with suppress(LabError):  # libvirtd may be what the test has ended
            (dest / "domain.xml").write_text(self.host.ask("dumpxml", self.name, timeout=20.0))
        if self._recording is not None:
            lines = "".join(f"{when:.6f} {line}\n" for when, line in self.kernel_log)
            (dest / "kernel.log").write_text(lines)
            commands = "".join(f"{when:.6f} {json.dumps(command)}\n" for when, command in self.qmp_commands())
            (dest / "qmp.log").write_text(commands)
        try:
            journal = self.shell("journalctl -b --no-pager -o short-monotonic", 20.0)
        except LabError as error:
            journal = f"the guest's shell did not give its journal: {error}\n"
        (dest / "journal.log").write_text(journal)

    @property
    def qemu_record(self) -> Record:
        """What QEMU said in this process. Raises LabError without ``spec.record``."""
        return self._recorded()

    def _recorded(self) -> Record:
        if self._recording is None:
            raise LabError(f"{self.name} was described without a record")
        return self._record

    def _tail(self) -> str:
        if self._recording is not None:
            return self._record.tail()
        console = self.host.folder_of(self.name) / CONSOLE
        return "\n".join(console.read_text(errors="replace").splitlines()[-20:]) if console.exists() else ""
