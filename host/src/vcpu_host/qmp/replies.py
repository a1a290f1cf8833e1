# SPDX-License-Identifier: Apache-2.0
"""QEMU's replies as values of the model. Pure; what is missing or odd is a QemuError "bad-reply", never a KeyError."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeVar

from ..core.model import LEVELS, HostThread, Ost, PropValue, Slot, freeze_props
from .names import OURS, Naming, device_id, is_at_start, owner_of
from .traps import bad_reply
from .words import clean

T = TypeVar("T", int, str, bool)

#: More slots than any machine has (q35 and pseries: 4096), few enough for a hostile reply to stay cheap.
_MOST = 65_536
#: How QEMU writes the type of a property that is a child (qom/object.c, object_property_try_add_child).
_CHILD = "child<"


def _never(_path: str) -> int | None:
    """Return that nothing was seen before."""
    return None


def entry(value: object, command: str) -> Mapping[str, Any]:
    """Return ``value``, which must be a JSON object."""
    if not isinstance(value, Mapping):
        raise bad_reply(command, f"an object was expected where it has {type(value).__name__}")
    return value


def entries(value: object, command: str) -> Sequence[Mapping[str, Any]]:
    """Return ``value``, which must be a list of JSON objects."""
    if not isinstance(value, list) or len(value) > _MOST:
        raise bad_reply(command, f"a list was expected where it has {type(value).__name__}")
    return [entry(item, command) for item in value]


def member(obj: Mapping[str, Any], name: str, kind: type[T], command: str) -> T:
    """Return a member that the schema promises."""
    value = obj.get(name)
    if type(value) is not kind:
        raise bad_reply(command, f"{name} is {value!r:.40}, not of type {kind.__name__}")
    return value


def text(value: object, command: str) -> str:
    """Return a reply that is a bare string."""
    if not isinstance(value, str):
        raise bad_reply(command, f"a string was expected where it has {type(value).__name__}")
    return value


def scalar(value: object, command: str) -> PropValue:
    """Return a reply that is a bare string, number or truth value."""
    if not isinstance(value, int | str | bool):
        raise bad_reply(command, f"a plain value was expected where it has {type(value).__name__}")
    return value


def command_names(value: object) -> frozenset[str]:
    """Return query-commands."""
    return frozenset(member(item, "name", str, "query-commands") for item in entries(value, "query-commands"))


def topology(value: object) -> Mapping[str, int]:
    """Return the machine's ``smp`` property.

    (SMPConfiguration, qapi/machine.json; machine_get_smp, hw/core/machine.c.)
    """
    given = entry(value, "qom-get")
    return MappingProxyType({name: member(given, name, int, "qom-get") for name in given})


def version(value: object) -> tuple[int, int, int]:
    """Return the ``qemu`` member of VersionInfo (qapi/control.json)."""
    parts = entry(value, "query-version")
    return (
        member(parts, "major", int, "query-version"),
        member(parts, "minor", int, "query-version"),
        member(parts, "micro", int, "query-version"),
    )


def threads(value: object) -> tuple[HostThread, ...]:
    """Return query-cpus-fast (CpuInfoFast, qapi/machine.json), one for each thread, by cpu-index."""
    command = "query-cpus-fast"
    found = [
        HostThread(
            member(cpu, "cpu-index", int, command),
            member(cpu, "thread-id", int, command),
            path := member(cpu, "qom-path", str, command),
            at_start=is_at_start(path),
        )
        for cpu in entries(value, command)
    ]
    return tuple(sorted(found, key=lambda thread: thread.cpu_index))


def children(value: object) -> Mapping[str, str]:
    """Return qom-list: the children's types by name.

    What else an object has (properties, links) is left out.
    """
    command, found = "qom-list", {}
    for item in entries(value, command):
        kind = member(item, "type", str, command)
        if kind.startswith(_CHILD):
            found[member(item, "name", str, command)] = clean(kind.removeprefix(_CHILD).removesuffix(">"))
    return found


def _props(value: object, command: str) -> Mapping[str, PropValue]:
    props = entry(value, command)
    for name, prop in props.items():
        if not isinstance(prop, int | str | bool):
            raise bad_reply(command, f"property {name} is {prop!r:.40}")
    return freeze_props(props)


def filled(value: object) -> frozenset[int]:
    """Return the slots that have a CPU: query-hotpluggable-cpus, which comes highest slot first."""
    command = "query-hotpluggable-cpus"
    raw = entries(value, command)
    return frozenset(len(raw) - 1 - place for place, item in enumerate(raw) if _path(item, command) is not None)


def slots(
    value: object, raw_cpus: object, seen: Callable[[str], int | None] = _never, naming: Naming = OURS
) -> tuple[Slot, ...]:
    """Return query-hotpluggable-cpus joined with query-cpus-fast by QOM path, in slot order.

    A vCPU belongs to the slot whose object is at its path or above it. Nothing else tells: pseries under KVM numbers
    vCPUs as they come since QEMU 9.1 (target/ppc/kvm.c, kvmppc_cpu_realize), and ``props`` in query-cpus-fast, which
    QEMU makes of that number, are another core's then. ``seen`` tells which slot had a path in an earlier look,
    ``naming`` which ids CPUs get.
    """
    command = "query-hotpluggable-cpus"
    raw = entries(value, command)
    paths = [_path(item, command) for item in raw]
    last = len(raw) - 1
    cpus = threads(raw_cpus)
    filled = {path: last - place for place, path in enumerate(paths) if path is not None}
    own: dict[int, list[HostThread]] = {}
    homeless: list[HostThread] = []
    for thread in cpus:
        owner = owner_of(thread.path, filled)
        if owner is None:
            homeless.append(thread)
        else:
            own.setdefault(owner, []).append(thread)
    found = [
        Slot(
            index=last - place,
            type=member(item, "type", str, command),
            props=_props(item.get("props"), command),
            vcpus=member(item, "vcpus-count", int, command),
            threads=tuple(own.get(last - place, ())),
            **_named(last - place, paths[place], naming),
        )
        for place, item in enumerate(raw)
    ]
    found.reverse()
    if not (_ascends([own[index][0].cpu_index for index in sorted(own)]) or _ascends(_places(found))):
        raise bad_reply(command, "its order agrees neither with its props nor with cpu-index in query-cpus-fast")
    return _with_leaving(found, homeless, raw_cpus, seen) if homeless else tuple(found)


def _ascends(numbers: Sequence[Any]) -> bool:
    """Return whether the reply ascends.

    QEMU prepends while it walks possible_cpus (hw/core/machine.c, machine_query_hotpluggable_cpus), so the reply comes
    highest first. That is not promised anywhere, so it is checked: by the numbers of the CPUs, or by the slots' places.
    Each of them grows with the slots on every machine but one: the numbers do not on pseries under KVM, the places do
    not on an s390x machine whose CPUs were given other places (set-cpu-topology).
    """
    return all(low < high for low, high in pairwise(numbers))


def _places(found: Sequence[Slot]) -> list[tuple[int, ...]]:
    """Return where each slot is, from the outermost level to the innermost. The node says nothing of the order."""
    names = [f"{level}-id" for level in LEVELS if level != "node"]
    return [tuple(value for name in names if type(value := slot.props.get(name)) is int) for slot in found]


def _with_leaving(
    found: Sequence[Slot], homeless: Sequence[HostThread], raw_cpus: object, seen: Callable[[str], int | None]
) -> tuple[Slot, ...]:
    """Return the slots, with the vCPUs whose slot is empty. Mostly it has lost its CPU object before they end.

    Seen with pseries, whose core goes before its threads (hw/ppc/spapr.c, spapr_core_unplug; cpu_remove_sync waits). A
    vCPU that is being removed keeps its place in the QOM tree: it belongs to the slot that had this path before. Where
    that was not seen, its properties tell, as long as those of the other vCPUs are their slots'. One that was never
    finished has no place.
    """
    command = "query-cpus-fast"
    props = {
        member(cpu, "cpu-index", int, command): _props(cpu.get("props", {}), command)
        for cpu in entries(raw_cpus, command)
    }

    def fits(slot: Slot, thread: HostThread) -> bool:
        return slot.props.items() <= props[thread.cpu_index].items()

    props_tell = all(fits(slot, thread) for slot in found for thread in slot.threads)
    leaving: dict[int, list[HostThread]] = {}
    phantoms: dict[int, list[HostThread]] = {}
    for thread in homeless:
        owner = seen(thread.path) if thread.path else None
        if owner is None and props_tell:
            owner = next((slot.index for slot in found if fits(slot, thread)), None)
        if owner is not None:
            (leaving if thread.path else phantoms).setdefault(owner, []).append(thread)
    return tuple(
        slot
        if slot.filled
        else replace(slot, leaving=tuple(leaving.get(slot.index, ())), phantoms=tuple(phantoms.get(slot.index, ())))
        for slot in found
    )


def fixed_slots(value: object, naming: Naming = OURS) -> tuple[Slot, ...]:
    """Return a filled slot for each vCPU, by its place in QEMU's order.

    That is query-cpus-fast of a machine without CPU hotplug.
    """
    command = "query-cpus-fast"
    raw = {cpu.get("cpu-index"): cpu for cpu in entries(value, command)}
    return tuple(
        Slot(
            index=place,
            type=str(raw[thread.cpu_index].get("qom-type", "")),
            props=_props(raw[thread.cpu_index].get("props", {}), command),
            vcpus=1,
            threads=(thread,),
            **_named(place, thread.path, naming),
        )
        for place, thread in enumerate(threads(value))
    )


def _named(index: int, path: str | None, naming: Naming) -> dict[str, Any]:
    """Return the fields of a slot that say how QEMU calls its CPU, which is at that path, or not there."""
    own = naming.slot_id(index)
    known = None if path is None else device_id(path)
    return {
        "filled": path is not None,
        "device_id": known,
        "path": path,
        "default_id": own,
        "managed": known == own,
        "at_start": path is not None and is_at_start(path),
    }


def _path(item: Mapping[str, Any], command: str) -> str | None:
    return member(item, "qom-path", str, command) if "qom-path" in item else None


def consistent(found: Sequence[Slot], raw_cpus: object) -> bool:
    """Return whether the two replies show the same CPUs.

    Between them another client may have plugged or unplugged one.
    """
    matched = sum(len(slot.threads) + len(slot.phantoms) for slot in found)
    return matched == len(entries(raw_cpus, "query-cpus-fast")) and all(
        len(slot.threads) == (slot.vcpus if slot.filled else 0) for slot in found
    )


def lists_cpus(value: object) -> bool:
    """Return whether query-acpi-ospm-status has CPUs at all.

    On pc and q35 up to QEMU 10 it has none until the guest's ACPI has run _INI (hw/acpi/ich9.c, ich9_pm_ospm_status:
    not while cpu_hotplug_legacy), and has them from then on. It never has any on types from before 2.7, on q35 with
    acpi=off, and where the guest's kernel runs without ACPI.
    """
    return any(item.get("slot-type") == "CPU" for item in entries(value, "query-acpi-ospm-status"))


def ost(value: object) -> Mapping[int, Ost]:
    """Return query-acpi-ospm-status for CPU slots.

    Those of which the guest has never said anything (0/0) are left out.
    """
    command = "query-acpi-ospm-status"
    said: dict[int, Ost] = {}
    for item in entries(value, command):
        if item.get("slot-type") != "CPU":
            continue
        slot = member(item, "slot", str, command)
        if not slot.isdecimal():
            raise bad_reply(command, f"slot is {slot!r:.40}")
        report = Ost(member(item, "source", int, command), member(item, "status", int, command))
        if report != Ost(0, 0):
            said[int(slot)] = report
    return said
