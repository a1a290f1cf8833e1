# SPDX-License-Identifier: Apache-2.0
"""How QEMU is to be started so that a VM has exactly the vCPUs that it has now: ``-smp`` and ``-device`` arguments.

``-smp N`` fills the first N vCPUs' slots, whatever their ids were to be, and takes no gap. So N covers the boot CPUs up
to the first slot that is empty or was plugged; every other CPU is a device of its own, with the id that it has.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .. import codes
from ..model import PropValue
from ..reason import Origin, Reason
from .shape import Place, Shape

#: What -smp takes on every machine. Levels that a machine lacks are shown as 1, and are an error when given, even as 1
#: (docs/about/removed-features.rst, "Unsupported parameter=1").
_EVERYWHERE = frozenset({"maxcpus", "sockets", "cores", "threads"})


class ExportError(ValueError):
    """This VM's vCPUs cannot be put as arguments; ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to start QEMU with, beside all that it is started with anyway.

    ``initial`` is -smp's first number, in vCPUs; ``topology`` the rest of -smp; ``devices`` the slots that are plugged
    beside it, in the order in which they came; ``globals`` what would change with that first number if it were not
    said.
    """

    initial: int
    topology: Mapping[str, int]
    devices: tuple[Place, ...]
    globals: Mapping[str, int]

    @property
    def argv(self) -> list[str]:
        """As QEMU gets them, unquoted."""
        levels = [f"{name}={count}" for name, count in self.topology.items() if name in _EVERYWHERE or count > 1]
        argv = ["-smp", ",".join([f"cpus={self.initial}", *levels])]
        for place in self.devices:
            argv += ["-device", device_text(place)]
        for name, number in self.globals.items():
            argv += ["-global", f"{name}={number}"]
        return argv

    @property
    def shell(self) -> str:
        """For a shell's command line, an option a line; what needs it is quoted."""
        return "\n".join(self._lines())

    @property
    def at_start(self) -> str:
        """Of ``shell``, what a monitor cannot do later: all but the devices."""
        return "\n".join(line for line in self._lines() if not line.startswith("-device "))

    def _lines(self) -> list[str]:
        argv = [shlex.quote(argument) for argument in self.argv]
        return [f"{option} {value}" for option, value in zip(argv[::2], argv[1::2], strict=True)]

    @property
    def qmp(self) -> str:
        """The devices as commands for a monitor, one a line."""
        return "\n".join(
            json.dumps({"execute": "device_add", "arguments": device_add(place)}) for place in self.devices
        )


def arguments(shape: Shape) -> Arguments:
    """Return the arguments for ``shape``. Raise ExportError "no-topology" if QEMU did not say how it was started."""
    if not shape.topology:
        raise ExportError(
            Reason(
                codes.NO_TOPOLOGY,
                Origin.QEMU,
                f"QEMU {shape.version_text} does not show its -smp",
                "QEMU 6.1 or newer does; or take the -smp of the VM's own command line",
            )
        )
    first = 1  # nothing starts without its first CPU, whatever that was called
    while first < len(shape.places) and shape.places[first].filled and shape.places[first].device_id is None:
        first += 1
    devices = tuple(sorted((p for p in shape.places[first:] if p.filled), key=lambda place: place.arrival))
    twice = [name for name, times in Counter(place.name for place in devices).items() if times > 1]
    if twice:
        text = f"two CPUs would have the id {twice[0]!r}: one has it, and another's slot is called so"
        raise ExportError(Reason(codes.DUPLICATE_ID, Origin.VCPUCTL, text, "unplug the one that vcpuctl did not plug"))
    initial = sum(place.vcpus for place in shape.places[:first])
    topology = {name: count for name, count in shape.topology.items() if name != "cpus"}
    return Arguments(initial, topology, devices, dict(_kept(shape, initial)))


def _kept(shape: Shape, initial: int) -> Iterator[tuple[str, int]]:
    """Yield the numbers of queues that follow from -smp's, which is another one now.

    What a device was given by itself stands on its own -device, and that weighs more than a -global.
    """
    for name, numbers in shape.queues.items():
        from_smp = shape.topology["cpus"]
        number = from_smp if from_smp in numbers else numbers[0]
        if number != initial and (number == from_smp or len(set(numbers)) == 1):
            yield name, number


def device_add(place: Place) -> dict[str, PropValue]:
    """Return the arguments of device_add for a slot; its props go back verbatim."""
    return {"driver": place.type, "id": place.name, **place.props}


def device_text(place: Place) -> str:
    """Return the slot as ``-device`` takes it: a comma in a value is doubled (util/keyval.c)."""
    given = device_add(place)
    driver = str(given.pop("driver"))
    return ",".join([_word(driver), *(f"{name}={_word(value)}" for name, value in given.items())])


def _word(value: PropValue) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
