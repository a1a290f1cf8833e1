# SPDX-License-Identifier: Apache-2.0
"""The QMP commands of the fake, with QEMU's own refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from kit.fakes.qemu.errors import QmpError

if TYPE_CHECKING:
    from kit.fakes.qemu.qemu import FakeQemu

Handler = Callable[["FakeQemu", "Arguments"], Any | Awaitable[Any]]

#: What the agent's port is called, and the label of its chardev.
PORT_NAME = "org.vcpuctl.agent.0"
PORT_CHARDEV = "ch0"


class Raw(str):
    """A reply that is JSON text already: thousands of slots are asked for again and again."""

    __slots__ = ()


class Arguments:
    """A command's arguments, checked as the generated visitors of QEMU do."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self._known: set[str] = set()

    def text(self, name: str, *, optional: bool = False) -> str | None:
        """A string member."""
        self._known.add(name)
        if name not in self.given:
            if optional:
                return None
            raise QmpError("GenericError", f"Parameter '{name}' is missing")
        value = self.given[name]
        if not isinstance(value, str):
            raise QmpError("GenericError", f"Invalid parameter type for '{name}', expected: string")
        return value

    def need(self, name: str) -> str:
        """A string member that must be there."""
        value = self.text(name)
        assert value is not None
        return value

    def done(self) -> None:
        """Nothing else may have been given."""
        for name in self.given:
            if name not in self._known:
                raise QmpError("GenericError", f"Parameter '{name}' is unexpected")


def _hotpluggable(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    config, machine = qemu.config, qemu.machine
    if not config.hotplug:
        old = config.version < (9, 0, 0)
        text = "The feature 'query-hotpluggable-cpus' is not enabled" if old else _NO_HOTPLUG
        raise QmpError("GenericError", text)
    shown = []
    for slot, static in zip(reversed(machine.slots), reversed(qemu.slot_json), strict=True):
        path = "" if slot.cpu is None else f', "qom-path": {json.dumps(slot.cpu.path)}'
        shown.append(f"{{{static}{path}}}")
    return Raw(f"[{', '.join(shown)}]")


_NO_HOTPLUG = "machine does not support hot-plugging CPUs"


def _cpus_fast(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    config = qemu.config
    extra = {"qom-type": config.cpu_type} if config.version >= (10, 1, 0) and not config.pseries else {}
    qemu.machine.show_cpus()
    there = [(slot.cpu.tid, slot.cpu, slot) for slot in qemu.machine.slots if slot.cpu is not None]
    there += [(cpu.tid, cpu, slot) for slot, cpu, rule in qemu.machine.lingering if not rule.released.is_set()]
    there += [(cpu.tid, cpu, slot) for slot, cpu in qemu.machine.phantoms]
    return [  # in the order in which they were made, which is that of our thread ids
        {
            "cpu-index": cpu.number,
            "qom-path": f"{cpu.path}/thread[0]" if config.pseries else cpu.path,
            "thread-id": cpu.tid,
            # made of the number, whichever core it is (hw/ppc/spapr.c, spapr_cpu_index_to_props)
            "props": {"core-id": cpu.number} if config.pseries else slot.props(config),
            "target": config.arch,
            **extra,
        }
        for _, cpu, slot in sorted(there, key=lambda entry: entry[0])
    ]


def _status(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    reply: dict[str, Any] = {"status": qemu.machine.status, "running": qemu.machine.running}
    if qemu.config.version < (9, 0, 0):
        reply["singlestep"] = False
    return reply


def _ospm_status(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    if qemu.config.pseries or (not qemu.config.acpi and "q35" not in qemu.config.machine):
        raise QmpError("GenericError", "command is not supported, missing ACPI device")
    if not qemu.config.hotplug or qemu.config.old or (qemu.machine.legacy and not qemu.machine.acpi_up):
        return []
    return [qemu.machine.ost_info(slot) for slot in qemu.machine.slots]


def _kvm(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    return {"enabled": qemu.config.accel == "kvm", "present": True}


def _fixed(make: Callable[[FakeQemu], Any]) -> Handler:
    def handler(qemu: FakeQemu, args: Arguments) -> Any:
        args.done()
        return make(qemu)

    return handler


def _device_add(qemu: FakeQemu, args: Arguments) -> Any:
    """qmp_device_add. Up to 8 its arguments were flattened to strings and read again (hence other texts)."""
    config = qemu.config
    old = config.version < (9, 2, 0)
    driver = args.given.get("driver")
    if not isinstance(driver, str) and not (old and "driver" in args.given):
        raise QmpError("GenericError", "Parameter 'driver' is missing")
    device_id = args.given.get("id")
    if old and isinstance(device_id, str) and not re.fullmatch(r"[A-Za-z][-A-Za-z0-9._]*", device_id):
        raise QmpError("GenericError", "Parameter 'id' expects an identifier")
    if not str(driver).endswith("-spapr-cpu-core" if config.pseries else "-x86_64-cpu"):
        raise QmpError("GenericError", f"'{driver}' is not a valid device model name")
    if not config.hotplug:
        raise QmpError("GenericError", f"Device '{driver}' can not be hotplugged on this machine")
    if qemu.machine.migrating:
        raise QmpError("GenericError", "device_add not allowed while migrating")
    if isinstance(device_id, str) and (
        (device_id == config.port_id and config.port) or device_id in config.other_devices
    ):
        raise QmpError("GenericError", f"Duplicate device ID '{device_id}'")
    props = {
        name: _prop(config.cpu_type, name, value, old=old) for name, value in args.given.items() if name not in _OWN
    }
    if old and "module-id" in props:
        raise QmpError("GenericError", f"Property '{driver}.module-id' not found")
    qemu.machine.plug(str(driver), device_id if isinstance(device_id, str) and device_id else None, props)
    return {}


_OWN = ("driver", "id", "bus")
_IDS = ("socket-id", "die-id", "module-id", "core-id", "thread-id", "node-id")


def _prop(cpu_type: str, name: str, value: Any, *, old: bool) -> int:
    if name not in _IDS:
        raise QmpError("GenericError", f"Property '{cpu_type}.{name}' not found")
    if old and isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        text = (
            f"Parameter '{name}' expects integer" if old else f"Invalid parameter type for '{name}', expected: integer"
        )
        raise QmpError("GenericError", text)
    return value


def _device_del(qemu: FakeQemu, args: Arguments) -> Any:
    device = args.need("id")
    args.done()
    if device in ("", "/machine"):
        kind = "hotpluggable device" if qemu.config.version < (9, 0, 0) else "device"
        raise QmpError("GenericError", f"{device} is not a {kind}")
    qemu.machine.ask_unplug(qemu.machine.find(device))
    return {}


def _qom_list(qemu: FakeQemu, args: Arguments) -> Any:
    path = args.need("path")
    args.done()
    children = qemu.children(path)
    if children is None:
        raise QmpError("DeviceNotFound", f"Device '{path}' not found")
    named = [{"name": name, "type": f"child<{kind}>"} for name, kind in children]
    return [{"name": "type", "type": "string"}, *named]


def _qom_get(qemu: FakeQemu, args: Arguments) -> Any:
    path, name = args.need("path"), args.need("property")
    args.done()
    properties = qemu.properties(path)
    if properties is None:
        raise QmpError("DeviceNotFound", f"Device '{path}' not found")
    if name not in properties:
        raise QmpError("GenericError", f"Property '{properties['type']}.{name}' not found")
    return properties[name]


async def _system_reset(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    qemu.later(qemu.machine.reset(guest=False))
    return {}


def _stop(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    qemu.machine.stop_vm()
    return {}


def _cont(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    qemu.machine.cont_vm()
    return {}


def _powerdown(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    qemu.emit("POWERDOWN", None)
    if qemu.machine.running and qemu.machine.booted:
        qemu.later(qemu.shut_down("guest-shutdown"))
    return {}


def _quit(qemu: FakeQemu, args: Arguments) -> Any:
    args.done()
    qemu.later(qemu.shut_down("host-qmp-quit"))
    return {}


COMMANDS: dict[str, Handler] = {
    "query-hotpluggable-cpus": _hotpluggable,
    "query-cpus-fast": _cpus_fast,
    "query-status": _status,
    "query-acpi-ospm-status": _ospm_status,
    "query-kvm": _kvm,
    "query-version": _fixed(lambda qemu: qemu.version_info()),
    "query-target": _fixed(lambda qemu: {"arch": qemu.config.arch}),
    "query-name": _fixed(lambda qemu: {"name": qemu.config.name} if qemu.config.name else {}),
    "query-chardev": _fixed(lambda qemu: qemu.chardevs()),
    "query-current-machine": _fixed(lambda qemu: {"wakeup-suspend-support": True}),
    "query-migrate": _fixed(lambda qemu: qemu.machine.migration),
    "query-commands": _fixed(lambda qemu: [{"name": name} for name in qemu.commands]),
    "qom-list": _qom_list,
    "qom-get": _qom_get,
    "device_add": _device_add,
    "device_del": _device_del,
    "stop": _stop,
    "cont": _cont,
    "system_reset": _system_reset,
    "system_powerdown": _powerdown,
    "quit": _quit,
}
