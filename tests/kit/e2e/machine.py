# SPDX-License-Identifier: Apache-2.0
"""A VM under test, with the real ``vcpuctl`` to resize it by."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import documents
from kit.ended import Ended
from kit.lab import KvmHost, Vm, VmSpec
from kit.lab.nested import Inside

ROOT = Path(__file__).resolve().parents[3]


VCPUCTL = Path(sys.executable).parent / "vcpuctl"


#: Another guest of the lab may take the standard one's place, to see that what holds for one holds for it as well.
SPEC = VmSpec(debs=ROOT / "build" / "deb", guest=os.environ.get("VCPU_E2E_GUEST") or VmSpec.guest)

#: How often a list is asked for while the agent's answer takes longer than a list waits, and the codes that say so.
_LISTS = 5
_TOO_SLOW = ("agent-slow", "no-answer")


class Vcpuctl:
    """Runs the real ``vcpuctl`` against a VM, as a process: in the emulated host of the VM, if that has one."""

    def __init__(self, vm: Vm, host: KvmHost | None = None) -> None:
        self.vm = vm
        self.host = host
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, json_output: bool = True) -> subprocess.Popen[str]:
        """Start it on this machine and leave it running; the caller waits for it."""
        argv = self._argv(*words, json_output=json_output)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._started.append(process)
        return process

    def begin(self, *words: str) -> Inside:
        """Start it in the emulated host and leave it running."""
        assert self.host is not None, "the VM runs on this machine"
        return self.host.begin(self._argv(*words))

    def _argv(self, *words: str, json_output: bool = True) -> list[str]:
        program = str(VCPUCTL) if self.host is None else "vcpuctl"
        return [program, "--qmp", str(self.vm.qmp_socket), *(["-o", "json"] if json_output else []), *words]

    def end(self) -> None:
        """Kill what a test that failed has left running, so that the next one starts without it."""
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def __call__(self, *words: str, timeout: float = 180.0) -> Ended:
        """Run it to its end."""
        if self.host is None:
            return self.wait(self.start(*words), timeout)
        done = self.host.run(self._argv(*words), timeout)
        documents.check_output(done.stdout)
        return Ended(done.returncode, done.stdout, done.stderr)

    @staticmethod
    def wait(process: subprocess.Popen[str], timeout: float = 180.0) -> Ended:
        """Wait for a started one."""
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        documents.check_output(stdout)
        return Ended(process.returncode, stdout, stderr)

    def map(self) -> dict[int, dict[str, Any]]:
        """``list -o json``'s slots by index, which must work.

        A guest that was restored on a busy host may need longer for its first answer than a list waits. Where the list
        says that, and nothing else, it is asked again.
        """
        for _ in range(_LISTS):
            ended = self("list")
            assert ended.status == 0, ended.stderr
            troubles = [ended.json[key] for key in ("agent_trouble", "guest_trouble")]
            if not any(trouble and trouble["code"] in _TOO_SLOW for trouble in troubles):
                break
        return ended.slots


@dataclass
class Machine:
    """A VM under test, with the command line to resize it by."""

    vm: Vm
    vcpuctl: Vcpuctl

    def online(self) -> set[int]:
        """APIC ids (slots) of the CPUs that the guest itself, asked over its console, has online."""
        cpus = self.vm.guest_cpus().values()
        return {cpu["apicid"] for cpu in cpus if cpu["online"] and cpu["apicid"] is not None}

    def filled(self) -> dict[int, str]:
        """Slots that QEMU, asked on the lab's own monitor, has filled, with their QOM paths."""
        reply = self.vm.qmp.execute("query-hotpluggable-cpus")
        return {len(reply) - 1 - i: slot["qom-path"] for i, slot in enumerate(reply) if "qom-path" in slot}

    def state(self) -> dict[str, Any]:
        """All that an operation can change, by the lab's own eyes: the same before and after what changes nothing."""
        listed = self.vm.qmp.execute("qom-list", path="/machine/peripheral")
        return {
            "slots": self.filled(),
            "devices": sorted(item["name"] for item in listed),
            "guest": self.vm.guest_cpus(),
            "status": self.vm.qmp.execute("query-status")["status"],
        }

    def slots_in_guest(self) -> dict[int, dict[str, Any]]:
        """By slot: ``cpu`` (the logical number) and ``online`` of each CPU that the guest shows on its console."""
        found: dict[int, dict[str, Any]] = {}
        for name, cpu in self.vm.guest_cpus().items():
            slot = int(cpu["path"].rpartition(".C")[2], 16)
            assert cpu["apicid"] in (None, slot), f"{name}: {cpu}"
            found[slot] = {"cpu": int(name.removeprefix("cpu")), "online": cpu["online"]}
        return found

    def switch(self, slot: int) -> str:
        """The guest's file by which the slot's CPU goes online and offline; each kernel numbers CPUs in its own way."""
        return f"/sys/devices/system/cpu/cpu{self.slots_in_guest()[slot]['cpu']}/online"

    def sent(self, command: str) -> list[dict[str, Any]]:
        """The arguments of every such command that QEMU received from others than the lab."""
        if self.vcpuctl.host is not None:
            self.vm.catch_up()
        return [
            said.get("arguments", {})
            for _, said in self.vm.qmp_commands()
            if said["execute"] == command and not str(said.get("id")).startswith("lab-")
        ]

    def raw_add(self, slot: int, device_id: str) -> None:
        """A device_add behind the product's back, waited for until the guest's firmware has acknowledged it."""
        entry = self.vm.qmp.execute("query-hotpluggable-cpus")[-1 - slot]
        self.vm.qmp.execute("device_add", driver=entry["type"], id=device_id, **entry["props"])
        self.vm.qmp.wait_event("ACPI_DEVICE_OST", slot=str(slot), source=1, timeout=30.0)

    def device_dels(self) -> int:
        """How many ``device_del`` QEMU has received on any monitor."""
        return sum(command["execute"] == "device_del" for _, command in self.vm.qmp_commands())
