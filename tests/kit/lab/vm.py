# SPDX-License-Identifier: Apache-2.0
"""One running VM, and the lab's ways of looking at it that share nothing with the product."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

from kit.lab import process, quiet, scratch
from kit.lab.errors import LabError, VmDiedError, WaitTimeoutError
from kit.lab.guest import Image
from kit.lab.place import Here, Place
from kit.lab.qemu import Qemu
from kit.lab.qmp import Qmp
from kit.lab.record import Record
from kit.lab.shell import GRACE, Shell
from kit.lab.spec import AGENT_CHARDEV, SOCKETS, VmSpec, command_line

#: plugs_left where no budget applies (KVM).
UNLIMITED = 1 << 30

#: Seconds for QEMU's first word on a command, on a busy machine.
_TRACES = 30.0

#: The tests ask for it all the time: what need not start a program doesn't, and busybox is linked statically.
GUEST_CPUS = """cd /sys/devices/system/cpu
for cpu in cpu[0-9]*; do
    online=1; [ ! -e $cpu/online ] || read -r online <$cpu/online
    path=
    for name in address physical_id firmware_node/path; do [ ! -e $cpu/$name ] || read -r path <$cpu/$name; done
    echo "cpu $cpu $online $path"
done
read -r present <present
echo "present $present"
busybox grep -E '^(processor|apicid)' /proc/cpuinfo || :
"""


class GuestCpu(TypedDict):
    """A CPU as the guest shows it.

    ``path`` is what its firmware calls it: the ACPI object, POWER's physical_id, the address on s390x.
    ``apicid`` is x86's, and only known while it is online.
    """

    online: bool
    path: str
    apicid: int | None


class Vm:
    """A QEMU process with its sockets. ``close`` ends it; use it as a context manager."""

    def __init__(
        self,
        spec: VmSpec,
        qemu: Qemu,
        image: Image,
        accel: str,
        disk: Path,
        *,
        incoming: bool = False,
        place: Place | None = None,
    ) -> None:
        """Start QEMU on that disk (a qcow2 file of this VM alone), waiting for ``load`` if ``incoming``.

        It runs on this machine, if no other ``place`` is given.
        """
        self.spec = spec
        self.accel = accel
        self.dir = scratch.make()

        def line(console: Path, chardevs: Mapping[str, str]) -> list[str]:
            argv = command_line(spec, qemu, image, accel, disk, console, chardevs)
            return [*argv, "-incoming", "defer"] if incoming else argv

        self._started = (place or Here()).start(line, qemu.env, (*SOCKETS, *spec.ports), self.dir)
        self.sockets = self._started.sockets
        #: For vcpuctl. They and the process's id are those of the machine on which QEMU runs.
        self.qmp_socket = self.sockets["qmp"]
        self.agent_socket = self.sockets[AGENT_CHARDEV]
        self._process = self._started.process
        self.pid = self._process.pid
        self.record = Record(self._started.said)
        self._clients: list[Qmp | Shell] = []
        try:
            self.qmp = Qmp(self.sockets["oracle"], tail=self.record.tail)
            self._clients.append(self.qmp)
            if not self.record.wait(lambda: bool(self.record.commands), _TRACES):
                raise LabError(f"QEMU {qemu.full_version} does not trace its QMP commands as the lab knows it")
            self._shell = Shell(self.sockets["shell"], tail=self.record.tail)
            self._clients.append(self._shell)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End QEMU and remove the VM's directory; what to keep must be collected before."""
        process.end(self._process)
        self.leave()

    def leave(self) -> None:
        """Let go of the VM, which runs on where it does not end with this process: see ``lab.place``."""
        self._started.leave()
        for client in self._clients:
            client.close()
        self.record.join(5.0)
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.poll() is None

    def shell(self, command: str, timeout: float = 10.0, grace: float = GRACE) -> str:
        """Run a command in the guest as root; see ``lab.shell.Shell.run``."""
        return self._shell.run(command, timeout, grace)

    def put(self, data: bytes, path: str, timeout: float = 60.0) -> None:
        """Write a file in the guest; see ``lab.shell.Shell.put``."""
        self._shell.put(data, path, timeout)

    def wait_shell(self, timeout: float = 180.0) -> None:
        """Wait until the guest's shell answers, after a boot or reboot."""
        self._shell.wait(timeout)

    def interactive(self) -> socket.socket:
        """The shell as a terminal; see ``lab.shell.Shell.interactive``."""
        return self._shell.interactive()

    @property
    def kernel_log(self) -> list[tuple[float, str]]:
        """The lines on the console in this process, timed by QEMU on the clock of time.monotonic.

        None on a machine whose console QEMU cannot trace (``Arch.trace``); ``collect`` keeps what it said all the same.
        """
        return self.record.kernel_log

    def wait_kernel(self, regex: str, timeout: float = 10.0, *, since: float = 0.0) -> tuple[float, str]:
        """The first line of the kernel log, not older than ``since``, that the regex is found in.

        Raises WaitTimeoutError, VmDiedError.
        """
        pattern = re.compile(regex)

        def hits() -> list[tuple[float, str]]:
            return [item for item in self.record.kernel_log if item[0] >= since and pattern.search(item[1])]

        self.record.wait(lambda: bool(hits()) or self.record.ended, timeout)
        found = hits()
        if found:
            return found[0]
        if self.record.ended:
            raise VmDiedError(f"QEMU ended before its console said {regex!r}\n{self.record.tail()}")
        raise WaitTimeoutError(f"the console did not say {regex!r} within {timeout:.1f} s\n{self.record.tail()}")

    def qmp_commands(self) -> list[tuple[float, dict[str, Any]]]:
        """Every QMP command QEMU received on any monitor, on the clock of ``kernel_log``.

        The lab's own carry an id ``lab-N``.
        """
        return self.record.commands

    def catch_up(self) -> None:
        """Wait until the record holds all that was said so far: from an emulated host it comes late."""
        self.qmp.execute("query-name")
        last = self.qmp.last
        if not self.record.wait(lambda: any(said.get("id") == last for _, said in self.qmp_commands()), _TRACES):
            raise WaitTimeoutError(f"the record has no command {last}\n{self.record.tail()}")

    @property
    def plugs_left(self) -> int:
        """How many more vCPUs can ever be plugged in this process: under TCG each plug uses one of maxcpus up for good.

        Every device_add of a CPU counts, also one that QEMU refused: rather too few left than an abort.
        """
        if self.accel != "tcg":
            return UNLIMITED
        adds = (command["arguments"] for _, command in self.qmp_commands() if command.get("execute") == "device_add")
        drivers = [str(arguments.get("driver")) for arguments in adds]
        plugs = sum("-cpu" in driver for driver in drivers)
        # a core is plugged with its threads
        plugs += sum("-cpu-core" in driver for driver in drivers) * (self.spec.threads - 1)
        given = self.spec.devices.count("-device") * self.spec.threads
        return self.spec.max_vcpus - self.spec.boot_vcpus - given - plugs

    def homeless(self) -> list[str]:
        """QOM paths of vCPUs without a slot: their removal is on its way in QEMU, or hangs there."""
        return homeless(self.qmp.execute("query-hotpluggable-cpus"), self.qmp.execute("query-cpus-fast"))

    def guest_cpus(self, timeout: float = 60.0, grace: float = GRACE) -> dict[str, GuestCpu]:
        """The guest's CPUs by name (``cpu0``, ...), read from sysfs and /proc/cpuinfo through the shell."""
        return parse_cpus(self.shell(GUEST_CPUS, timeout, grace))

    def save(self, target: Path, timeout: float = 60.0) -> None:
        """Stop the VM, write its state (all but the disk) to a file, and end QEMU cleanly."""
        if quiet.loses_interrupts(self.spec.machine, self.accel):
            quiet.stop(self.qmp)
        else:
            self.qmp.execute("stop")
        self.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40)
        # QEMU calls it completed when it has written all into the pipe; the file is whole when it has its name.
        part, whole = (shlex.quote(str(path)) for path in (target.with_name(f"{target.name}.part"), target))
        target.unlink(missing_ok=True)
        self._migrate("migrate", f"exec:cat >{part} && mv {part} {whole}", timeout)
        self.qmp.execute("quit")
        self.qmp.wait_closed(10.0)
        self._process.wait(10.0)
        deadline = time.monotonic() + timeout
        while not target.exists():
            if time.monotonic() > deadline:
                raise LabError(f"{target} was not written\n{self.record.tail()}")
            threading.Event().wait(0.01)

    def load(self, source: Path, timeout: float = 60.0) -> None:
        """Take up a saved state and let it run."""
        self._migrate("migrate-incoming", f"exec:cat {shlex.quote(str(source))}", timeout)
        self.qmp.execute("cont")

    def _migrate(self, command: str, uri: str, timeout: float) -> None:
        self.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        began = time.monotonic()
        self.qmp.execute(command, uri=uri)
        self.wait_migrated(timeout, since=began)

    def savevm(self, name: str, timeout: float = 60.0) -> None:
        """Keep the whole VM, as it is now, in its disk under that name. Raises LabError with QEMU's words."""
        said = self._hmp(f"savevm {name}", timeout)
        if said:
            raise LabError(f"savevm {name}: {said}")

    def loadvm(self, name: str, timeout: float = 60.0) -> str:
        """Go back to a snapshot. "", or what QEMU said: the VM then stands still, half of it as it was (restore-vm)."""
        return self._hmp(f"loadvm {name}", timeout)

    def _hmp(self, line: str, timeout: float) -> str:
        return str(self.qmp.execute("human-monitor-command", command_line=line, timeout=timeout)).strip()

    def wait_migrated(self, timeout: float, *, since: float) -> None:
        """Wait for the end of a migration that tells of itself. Raises LabError with QEMU's words if it fails.

        What was told before ``since`` is of another one: a snapshot that is made or loaded tells of itself as well.
        """
        deadline = time.monotonic() + timeout
        status = ""
        while status != "completed":
            try:
                event = self.qmp.wait_event("MIGRATION", deadline - time.monotonic())
                if event.time < since:
                    continue
                status = event.data["status"]
            except WaitTimeoutError as error:
                raise LabError(f"migration takes too long: {self.qmp.execute('query-migrate')}\n{error}") from error
            if status == "failed":
                raise LabError(f"migration failed: {self.qmp.execute('query-migrate')}\n{self.record.tail()}")

    def collect(self, dest: Path) -> None:
        """Write what a failure leaves to look at: console, kernel log and QMP log with times, QEMU's words, journal."""
        dest.mkdir(parents=True, exist_ok=True)
        self._started.copy_console(dest / "console.log")
        log = "".join(f"{when:.6f} {line}\n" for when, line in self.kernel_log)
        (dest / "kernel.log").write_text(log)
        commands = "".join(f"{when:.6f} {json.dumps(command)}\n" for when, command in self.qmp_commands())
        (dest / "qmp.log").write_text(commands)
        events = "".join(f"{event.time:.6f} {event.name} {json.dumps(event.data)}\n" for event in self.qmp.events())
        (dest / "events.log").write_text(events)
        (dest / "qemu.log").write_text("\n".join(self.record.messages) + "\n")
        try:
            journal = self.shell("journalctl -b --no-pager -o short-monotonic", 20.0)
        except LabError as error:
            journal = f"the guest's shell did not give its journal: {error}\n"
        (dest / "journal.log").write_text(journal)


def homeless(slots: Sequence[Mapping[str, Any]], running: Sequence[Mapping[str, Any]]) -> list[str]:
    """QOM paths of vCPUs (query-cpus-fast) that belong to no filled slot (query-hotpluggable-cpus)."""
    homes = [str(slot["qom-path"]) for slot in slots if "qom-path" in slot]
    paths = [str(cpu["qom-path"]) for cpu in running]
    return [path for path in paths if not any(path == home or path.startswith(f"{home}/") for home in homes)]


def parse_cpus(text: str) -> dict[str, GuestCpu]:
    """What ``GUEST_CPUS`` says, which may see CPUs come and go meanwhile."""
    cpus: dict[str, GuestCpu] = {}
    current = ""
    for line in text.splitlines():
        if line.startswith("cpu "):
            _, name, online, path = line.split(" ", 3)
            cpus[name] = GuestCpu(online=online == "1", path=path, apicid=None)
        elif line.startswith("present "):
            # POWER has directories for all possible CPUs
            present = {f"cpu{number}" for number in _numbers(line.removeprefix("present "))}
            cpus = {name: cpu for name, cpu in cpus.items() if name in present}
        else:
            label, value = (part.strip() for part in line.split(":"))
            if label == "processor":
                current = f"cpu{value}"
            elif label == "apicid" and current in cpus:  # else it came online since its directory was looked for
                cpus[current]["apicid"] = int(value)
    return cpus


def _numbers(text: str) -> set[int]:
    """The kernel's form of a set: ``0-3,5``."""
    ranges = (part.partition("-") for part in text.split(","))
    return {number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)}
