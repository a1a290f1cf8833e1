# SPDX-License-Identifier: Apache-2.0
"""The fake QEMU itself: a machine, its monitors, and the socket from which a test steers it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from kit.fakes.qemu.ages import commands_of
from kit.fakes.qemu.commands import PORT_CHARDEV, PORT_NAME, Handler
from kit.fakes.qemu.config import Config
from kit.fakes.qemu.faults import Faults
from kit.fakes.qemu.guest import AutoGuest, FakeGuest
from kit.fakes.qemu.machine import Machine, timestamp
from kit.fakes.qemu.monitor import Monitor, encoded
from kit.fakes.qemu.pseries import PseriesMachine
from kit.fakes.qemu.steering import STEERING


class Port(Protocol):
    """The agent's port, as the machine sees it."""

    @property
    def socket(self) -> str:
        """The chardev's path."""

    @property
    def host_connected(self) -> bool:
        """Whether a host program is connected."""

    @property
    def guest_open(self) -> bool:
        """Whether a guest program has it open."""


class ClosedPort:
    """A port with nobody at either end; a test may say otherwise."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.host_connected = False
        self.guest_open = False


_DISK = "/machine/peripheral/root-disk"


class FakeQemu:
    """Use as an asynchronous context manager. Sockets in ``folder``: ``qmp``, ``qmp2`` (monitors) and ``steer``."""

    def __init__(
        self,
        folder: Path,
        config: Config | None = None,
        guest: FakeGuest | None = None,
        *,
        port: Port | None = None,
        die: Callable[[], None] | None = None,
        steering: Mapping[str, Handler] | None = None,
    ) -> None:
        self.folder = folder
        self.config: Config = config or Config()
        self.guest: FakeGuest = guest or AutoGuest()
        self.faults = Faults()
        kind = PseriesMachine if self.config.pseries else Machine
        self.machine: Machine = kind(self.config, self.guest, self.faults, self.emit, self.die)
        self.port: Port = port or ClosedPort(str(folder / "agent"))
        self.commands: dict[str, Handler] = commands_of(self.config.version)
        #: Every command that any monitor received, with the monotonic time of its arrival.
        self.log: list[tuple[float, str, Mapping[str, Any]]] = []
        self.events: list[Mapping[str, Any]] = []
        self.dead = asyncio.Event()
        self.port_moved = asyncio.Event()
        self._on_death = die
        self._tasks: set[asyncio.Task[Any]] = set()
        self.slot_json: list[str] = []
        self.show_slots()
        self.monitors = {name: Monitor(self, folder / name, self.commands) for name in ("qmp", "qmp2")}
        self.monitors["steer"] = Monitor(self, folder / "steer", self.commands | STEERING | dict(steering or {}))

    def show_slots(self) -> None:
        """What query-hotpluggable-cpus says of each slot, but for its CPU."""
        self.slot_json = [
            json.dumps({"type": self.config.cpu_type, "vcpus-count": 1, "props": slot.props(self.config)})[1:-1]
            for slot in self.machine.slots
        ]

    #: The virtio-serial device that the agent's port is on.
    virtio = "/machine/peripheral-anon/device[0]/virtio-backend"

    @property
    def qmp(self) -> Path:
        """The monitor for whoever is tested."""
        return self.folder / "qmp"

    async def __aenter__(self) -> Self:
        for monitor in self.monitors.values():
            monitor.start()
        self.machine.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._end()

    async def _end(self) -> None:
        await self.machine.stop()
        for monitor in self.monitors.values():
            await monitor.stop()
        current = asyncio.current_task()
        others = [task for task in self._tasks if task is not current]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` beside everything else, until the fake ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def emit(self, name: str, data: Mapping[str, Any] | None) -> None:
        """An event, to all monitors, unless a rule says otherwise."""
        rule = self.faults.take(f"event:{name}")
        if rule is not None and rule.do == "drop":
            return
        event: dict[str, Any] = {"timestamp": timestamp(), "event": name}
        if data is not None:
            event["data"] = data
        said = encoded(event)
        for _ in range(2 if rule is not None else 1):
            self.events.append(event)
            for monitor in self.monitors.values():
                monitor.emit(said)

    def record(self, command: str, arguments: Mapping[str, Any]) -> None:
        """Keep the command for the test."""
        if not command.startswith("x-fake-"):
            self.log.append((time.monotonic(), command, arguments))

    def die(self) -> None:
        """End as by a crash: in a process of its own by a signal, else every connection is lost at once."""
        if self._on_death is not None:
            self._on_death()
        for monitor in self.monitors.values():
            monitor.drop_client()
        self.dead.set()
        if all(task.get_name() != "death" for task in self._tasks):
            self.later(self._end()).set_name("death")

    async def shut_down(self, reason: str) -> None:
        """A clean end: SHUTDOWN, then the process exits."""
        self.emit("SHUTDOWN", {"guest": reason.startswith("guest"), "reason": reason})
        for monitor in self.monitors.values():
            if monitor.client is not None:
                await monitor.client.flush()
        self.dead.set()
        await self._end()
        for monitor in self.monitors.values():
            monitor.path.unlink(missing_ok=True)  # which a crash does not

    def version_info(self) -> dict[str, Any]:
        """VersionInfo."""
        major, minor, micro = self.config.version
        return {"qemu": {"micro": micro, "minor": minor, "major": major}, "package": "fake"}

    def set_port(self, *, guest_open: bool) -> None:
        """The guest opened or closed the port. QEMU tells of it only if the device has an id."""
        if isinstance(self.port, ClosedPort):
            self.port.guest_open = guest_open
        self.port_changed(guest_open=guest_open)

    def port_changed(self, *, guest_open: bool) -> None:
        """VSERPORT_CHANGE, and the word to those who wait for it."""
        self.port_moved.set()
        if self.config.port and self.config.port_id:
            self.emit("VSERPORT_CHANGE", {"open": guest_open, "id": self.config.port_id})

    def chardevs(self) -> list[dict[str, Any]]:
        """query-chardev."""
        found = [
            self._chardev(f"compat_monitor{place}", str(monitor.path), monitor.client is not None, is_open=True)
            for place, monitor in enumerate(self.monitors.values())
        ]
        if self.config.port:
            found.append(
                {"frontend-open": self.port.guest_open, "filename": self._port_filename(), "label": PORT_CHARDEV}
            )
        return found

    def _port_filename(self) -> str:
        """As 10.0 has it (chardev/char-socket.c, qemu_chr_socket_address; qemu_chr_compute_filename with a client)."""
        kind, path, connected = self.config.chardev, self.port.socket, self.port.host_connected
        away = "" if connected else "disconnected:"
        if kind == "abstract":
            # With a client the name is gone: it begins with a NUL.
            return "unix:,server=on" if connected else f"{away}unix:{path[1:]},abstract=on,tight=on,server=on"
        others = {
            "pty": "pty:/dev/pts/7",
            "client": "unix:/run/somebody",
            "tcp": "disconnected:tcp:127.0.0.1:7,server=on",
        }
        return others.get(kind, f"{away}unix:{path},server=on")

    @staticmethod
    def _chardev(label: str, path: str, connected: bool, *, is_open: bool) -> dict[str, Any]:
        filename = f"{'' if connected else 'disconnected:'}unix:{path},server=on"
        return {"frontend-open": is_open, "filename": filename, "label": label}

    def _port_path(self) -> str | None:
        if not self.config.port:
            return None
        return (
            f"/machine/peripheral/{self.config.port_id}"
            if self.config.port_id
            else "/machine/peripheral-anon/device[p]"
        )

    def children(self, path: str) -> list[tuple[str, str]] | None:
        """The children at a QOM path, as name and type."""
        path = path if path.startswith("/") else f"/machine/{path}"
        if path not in ("/machine", "/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached"):
            return None
        paths = [(slot.cpu.path, self.config.cpu_type) for slot in self.machine.slots if slot.cpu is not None]
        paths += [(f"/machine/peripheral/{name}", kind) for name, kind in self.config.other_devices.items()]
        port = self._port_path()
        if port is not None:
            paths.append((port, "virtserialport"))
        return [(at.removeprefix(f"{path}/"), kind) for at, kind in paths if at.rpartition("/")[0] == path]

    def properties(self, path: str) -> dict[str, Any] | None:
        """The properties of the object at a QOM path."""
        if path == "/machine" and self.config.pseries:
            return {"type": self.config.machine_type, "smp": self.config.topology, "vsmt": 1, "ic-mode": "dual"}
        if path == "/machine":
            # hw/i386/pc_sysfw.c: only a drive that is used keeps its property; firmware with SMM needs it.
            flash = {"pflash0": "firmware"} if self.config.smm else {}
            acpi = "auto" if self.config.acpi else "off"
            return {"type": self.config.machine_type, "smp": self.config.topology, "acpi": acpi, **flash}
        if path == _DISK:
            return {"type": "virtio-blk-pci", "num-queues": self.config.queues or self.config.smp}
        if self.config.other_devices.get(path.removeprefix("/machine/peripheral/")) == "intel-iommu":
            return {"type": "intel-iommu", "intremap": "on", "eim": "on"}
        if path == self._port_path():
            return {
                "type": "virtserialport",
                "name": PORT_NAME,
                "chardev": PORT_CHARDEV,
                "parent_bus": f"{self.virtio}/virtio-serial-bus.0",
            }
        for slot in self.machine.slots:
            if slot.cpu is not None and slot.cpu.path == path:
                if self.config.pseries:
                    return {"type": self.config.cpu_type, "realized": True, "core-id": slot.index, "nr-threads": 1}
                ids = {f"{level}-id": number for level, number in slot.ids.items()}
                features = {"x2apic": self.config.x2apic, "hypervisor": self.config.hypervisor, "kvm": self.config.kvm}
                return {"type": self.config.cpu_type, "realized": True, "apic-id": slot.apic_id, **features, **ids}
        return None
