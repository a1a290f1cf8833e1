# SPDX-License-Identifier: Apache-2.0
"""Which vCPUs a VM has, as a value that can travel: to the QEMU that is to take the VM over, or to its next start.

A slot is told by its index and its props. QOM paths do not count: a CPU that was plugged may be a boot CPU on the other
side, and QEMU's migration goes by cpu-index (hw/core/cpu-system.c, cpu_vmstate_register). That follows from the slot,
but for pseries under KVM since QEMU 9.1, where it does from the order of plugging (``Platform.numbers_arrivals``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ..intent import Intent
from ..model import HostView, Props, Slot, freeze_props
from ..run_states import AWAY
from ..text import printable
from ..view import VmView

#: More slots than any machine has (q35 and pseries: 4096).
_MOST = 65_536


@dataclass(frozen=True, slots=True)
class Place:
    """One slot. ``device_id`` is None for a CPU that was there at start, and for an empty slot.

    ``default_id`` is the id that a CPU gets which is plugged there; it does not travel, since it is the host's to give.
    ``arrival`` says which of the CPUs that are there was made before which; 0 for an empty slot, and for the first.
    """

    index: int
    type: str
    props: Props
    vcpus: int
    filled: bool
    device_id: str | None = None
    arrival: int = 0
    default_id: str = field(default="", compare=False)

    @classmethod
    def of(cls, slot: Slot, arrival: int) -> Place:
        """Return what of the slot is the same on every host."""
        return cls(slot.index, slot.type, slot.props, slot.vcpus, slot.filled, slot.device_id, arrival, slot.default_id)

    @property
    def name(self) -> str:
        """The id that it has, or, if it has none, will have when it is plugged; empty where that is not known."""
        return self.device_id or self.default_id

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in an export."""
        return {
            "slot": self.index,
            "type": self.type,
            "props": dict(self.props),
            "vcpus": self.vcpus,
            "filled": self.filled,
            "id": self.device_id,
            "arrival": self.arrival,
        }


@dataclass(frozen=True, slots=True)
class Shape:
    """A VM's slots, in slot order, with what has to be the same on both sides of a migration.

    ``pending`` is what was asked of the VM and has not come to its end: whoever goes on with the VM goes on with that.
    ``queues`` are the numbers of queues of devices that get one for each CPU of -smp, by the name that -global has for
    them: they have to stay when -smp's number changes.
    """

    qemu_version: tuple[int, int, int]
    machine: str
    arch: str
    accel: str
    topology: Mapping[str, int]
    places: tuple[Place, ...]
    pending: tuple[Intent, ...] = ()
    vm_name: str = ""
    queues: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    status: str = "running"
    migration: str = ""

    @classmethod
    def of(
        cls, host: HostView, pending: Sequence[Intent] = (), queues: Mapping[str, tuple[int, ...]] | None = None
    ) -> Shape:
        """Return the shape of what QEMU shows."""
        arrivals = {index: place for place, index in enumerate(_arrivals(host))}
        return cls(
            qemu_version=host.qemu_version,
            machine=host.machine,
            arch=host.arch,
            accel=host.accel,
            topology=host.topology,
            places=tuple(Place.of(slot, arrivals.get(slot.index, 0)) for slot in host.slots),
            pending=tuple(pending),
            vm_name=host.vm_name,
            queues=queues or {},
            status=host.status,
            migration=host.migration if host.migrating else "",
        )

    def with_default_ids_of(self, other: Shape) -> Shape:
        """Return the same shape, whose CPUs get the ids that the other one's host gives.

        Those ids do not travel in an export.
        """
        return self.with_default_ids(other.default_ids)

    @property
    def default_ids(self) -> list[str]:
        """The id that a CPU gets which is plugged there, slot by slot."""
        return [place.default_id for place in self.places]

    def with_default_ids(self, ids: Sequence[str]) -> Shape:
        """Return the same shape, in which these are the ids of CPUs that are plugged, as far as there are none yet."""
        own = dict(enumerate(ids))
        places = (place if place.name else replace(place, default_id=own.get(place.index, "")) for place in self.places)
        return replace(self, places=tuple(places))

    @property
    def moving(self) -> str:
        """What says that the VM is under way, or no more here; empty if nothing does."""
        return self.migration or (self.status if self.status in AWAY else "")

    @property
    def version_text(self) -> str:
        """QEMU's version in its own form."""
        return ".".join(map(str, self.qemu_version))

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in an export."""
        return {
            "vm": {
                "name": self.vm_name,
                "qemu_version": self.version_text,
                "machine": self.machine,
                "arch": self.arch,
                "accel": self.accel,
                "status": self.status,
                "migration": self.migration,
            },
            "topology": dict(self.topology),
            "slots": [place.to_json() for place in self.places],
            "pending": [intent.to_json() for intent in self.pending],
            "queues": {name: list(numbers) for name, numbers in self.queues.items()},
        }

    @classmethod
    def from_json(cls, document: Any) -> Shape:
        """Return the shape that stands so in an export.

        Raise ValueError, in words for people, for anything that ``to_json`` does not make.
        """
        try:
            vm = _mapping(document["vm"])
            places = tuple(_place(index, entry) for index, entry in enumerate(_list(document["slots"])))
            shape = cls(
                qemu_version=_version(vm["qemu_version"]),
                machine=_text(vm["machine"]),
                arch=_text(vm["arch"]),
                accel=_text(vm["accel"]),
                topology=MappingProxyType({name: _int(n) for name, n in _mapping(document["topology"]).items()}),
                places=places,
                pending=tuple(Intent.from_json(entry) for entry in _list(document["pending"])),
                vm_name=_text(vm["name"]),
                status=_text(vm["status"]),
                migration=_text(vm["migration"]),
                queues={
                    _text(name): tuple(_int(number) for number in _list(numbers))
                    for name, numbers in _mapping(document["queues"]).items()
                },
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is no export of vcpuctl: {error!r}") from error
        if any(not 0 <= intent.slot < len(places) for intent in shape.pending):
            raise ValueError("something is pending for a slot that it does not have")
        return shape


def _arrivals(host: HostView) -> list[int]:
    """Return the filled slots in the order in which their CPUs were made, by the ids of their threads.

    Linux gives ids in ascending order, and begins anew only after millions (kernel/pid.c, alloc_pid).
    """
    there = [slot for slot in host.slots if slot.filled]
    there.sort(key=lambda slot: (min((thread.thread_id for thread in slot.threads), default=0), slot.index))
    return [slot.index for slot in there]


def shape_of(view: VmView, queues: Mapping[str, tuple[int, ...]]) -> Shape:
    """Return the shape of a VM as it was looked at, with what is open of earlier operations."""
    return Shape.of(view.host, [slot.pending for slot in view.slots if slot.pending is not None], queues)


def _version(value: Any) -> tuple[int, int, int]:
    parts = _text(value).split(".")
    if len(parts) != 3 or not all(part.isdecimal() and part.isascii() for part in parts):
        raise ValueError(f"QEMU's version is three numbers, as in 10.0.13, not {value!r:.40}")
    major, minor, micro = map(int, parts)
    return major, minor, micro


def _place(index: int, entry: Any) -> Place:
    fields = _mapping(entry)
    props = _mapping(fields["props"])
    if fields["slot"] != index:
        raise ValueError(f"slot {fields['slot']!r} stands where slot {index} should")
    for name, value in props.items():
        _text(name)
        if not isinstance(value, int):
            _text(value)
    if type(fields["filled"]) is not bool:
        raise ValueError(f"slot {index}: filled is {fields['filled']!r:.40}, not true or false")
    name = fields["id"]
    return Place(
        index,
        _text(fields["type"]),
        freeze_props(props),
        _int(fields["vcpus"]),
        fields["filled"],
        None if name is None else _text(name),
        _int(fields["arrival"]),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object was expected where it has {value!r:.40}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError(f"a list was expected where it has {value!r:.40}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected where it has {value!r:.40}")
    if printable(value) != value:
        raise ValueError(f"it has characters that do not belong there: {value!r:.80}")
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"a whole number was expected where it has {value!r:.40}")
    return value
