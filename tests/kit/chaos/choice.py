# SPDX-License-Identifier: Apache-2.0
"""What is done to the VM, as data: every choice comes from the seed and the turn's number, and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class When(StrEnum):
    """What a fault's delay counts from."""

    #: The operation has not been started: the fault comes first, and may last into it.
    BEFORE = "before"
    START = "start"
    #: The first device_add, or device_del, that this operation sent.
    ADD = "device_add"
    DEL = "device_del"


@dataclass(frozen=True)
class Shape:
    """What of a VM the choices depend on. Slots count from 0, which is never touched."""

    threads: int
    slots: int
    #: Faults that cannot be had there.
    without: frozenset[str] = frozenset()
    #: Faults that can be had there and at few others: those of ``KINDS`` that are ``apart``.
    also: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fault:
    """One fault. ``delay`` and ``seconds`` (how long it lasts) are in seconds; what else counts depends on its name."""

    name: str
    when: When
    delay: float
    seconds: float
    slot: int
    words: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False)

    @property
    def interval(self) -> float:
        """Seconds between two looks of an onliner."""
        return round(_QUICKEST + self.seconds / 5, 2)

    def __str__(self) -> str:
        detail = {
            "raw-add": f" {self.slot}",
            "raw-del": f" {self.slot}",
            "guest-offline": f" {self.slot}",
            "guest-online": f" {self.slot}",
            "onliner": f" {self.interval:.2f}",
            "foreign-name": f" {self.slot}",
            "taken-id": f" {self.slot}",
            "operator-plug": f" {self.slot}",
            "operator-unplug": f" {self.slot}",
        }
        moment = "before" if self.when is When.BEFORE else f"{self.when}+{self.delay:.2f}"
        return f"{' '.join((self.name, *self.words))}{detail.get(self.name, '')}@{moment}"


@dataclass(frozen=True)
class Turn:
    """One operation with its faults, and the goal of the ``scale`` after it, which must succeed."""

    number: int
    words: tuple[str, ...]
    #: vcpuctl's own --timeout, in seconds.
    timeout: int
    faults: tuple[Fault, ...]
    goal: int
    #: Whether the ``scale`` is said twice: the second one must change nothing.
    repeat: bool

    def __str__(self) -> str:
        faults = ", ".join(map(str, self.faults)) or "no fault"
        return f"--timeout {self.timeout} {' '.join(self.words)} [{faults}]"


@dataclass(frozen=True)
class _Kind:
    weight: int
    #: It can come while an operation is under way.
    during: bool = True
    #: It can come before.
    before: bool = True
    #: The guest's shell does not answer after it for a while: there is one of these a turn, and it is the last.
    heavy: bool = False
    #: It takes a machine of a certain kind: see ``Shape.also``.
    apart: bool = False


#: Faults by name, with how often each is chosen among the others.
KINDS: Mapping[str, _Kind] = {
    "kill-vcpuctl": _Kind(14, before=False),
    "stop-vcpuctl": _Kind(9, before=False),
    "second-vcpuctl": _Kind(8, before=False),
    "kill-vcpud": _Kind(10),
    "stop-vcpud": _Kind(8),
    "pause": _Kind(7),
    "link-drop": _Kind(5),
    "link-garbage-host": _Kind(5),
    "link-garbage-guest": _Kind(3, during=False),
    "raw-add": _Kind(6),
    "raw-del": _Kind(6),
    "guest-offline": _Kind(7),
    "guest-online": _Kind(5),
    # something in the guest brings whatever is offline online again, as long as the turn lasts
    "onliner": _Kind(5, during=False),
    # a snapshot is made before the turn, and gone back to
    "revert": _Kind(5, before=False),
    # the guest's firmware calls a CPU by a name that is no slot's
    "foreign-name": _Kind(4),
    # a device of another kind has the id that a slot's CPU would get
    "taken-id": _Kind(4),
    "refuse-deadline": _Kind(3, during=False),
    "refuse-eject": _Kind(3, during=False),
    "memory": _Kind(4, during=False),
    "move": _Kind(4, heavy=True),
    # an emulated guest boots for half a minute, in which twenty others could be had
    "reboot": _Kind(3, heavy=True),
    "reset": _Kind(1, heavy=True),
    # libvirt's daemon, which is stopped and started, or killed and away for a while
    "libvirtd-restart": _Kind(7, apart=True),
    "libvirtd-kill": _Kind(6, apart=True),
    # another client of libvirt has the agent's channel: where it is free, by force, or for what nobody understands
    "channel-held": _Kind(6, apart=True),
    "channel-stolen": _Kind(6, apart=True),
    "channel-garbage": _Kind(4, apart=True),
    # somebody else resizes the domain: virsh setvcpu
    "operator-plug": _Kind(6, apart=True),
    "operator-unplug": _Kind(6, apart=True),
    # vcpuctl reaches the host another way as long as the turn lasts; and that way is interrupted
    "over-ssh": _Kind(7, during=False, apart=True),
    "over-tcp": _Kind(5, during=False, apart=True),
    "ssh-ended": _Kind(3, before=False, apart=True),
    "network-cut": _Kind(4, before=False, apart=True),
}
#: The way that each of these interrupts, which vcpuctl has to come.
_INTERRUPTS: Mapping[str, str] = {"ssh-ended": "over-ssh", "network-cut": "over-tcp"}
#: The faults of domains, which libvirt stands before.
OF_DOMAINS = frozenset(name for name, kind in KINDS.items() if kind.apart)

#: The most vCPUs (in slots) that one operation or goal is about, and the slots that faults and operations meet at.
_MOST, _POOL = 6, 7
#: Seconds within which most operations are still at work, after their start and after they began to change something.
_LATEST, _SOON = 1.3, 0.4
#: An onliner's shortest interval, in seconds. With shorter ones a CPU is hardly offline when its device_del comes, and
#: tests/e2e/test_onliners.py is about that.
_QUICKEST = 0.2


def turn(seed: int, number: int, shape: Shape) -> Turn:
    """The turn of that number; the same for the same seed and shape, however many come before it."""
    dice = random.Random(f"{seed}/{number}")
    words = _operation(dice, shape)
    faults: list[Fault] = []
    for _ in range(dice.choices((0, 1, 2, 3), (12, 45, 31, 12))[0]):
        fault = _fault(dice, shape, words)
        if fault.name not in {other.name for other in faults} and not _two_heavy(fault, faults):
            faults.append(fault)
    for fault in list(faults):
        way = _INTERRUPTS.get(fault.name)
        if way is not None:
            faults = [other for other in faults if other.name not in _INTERRUPTS.values()]
            faults.append(Fault(way, When.BEFORE, 0.0, fault.seconds, fault.slot))
    # what is first is done first, and what silences the guest's shell is done last
    order = list(When)
    faults.sort(key=lambda fault: (KINDS[fault.name].heavy, order.index(fault.when), fault.delay))
    patient = any(KINDS[fault.name].heavy for fault in faults) and dice.random() < 0.6
    timeout = 150 if patient else dice.choices((4, 30, 60), (1, 4, 4))[0]
    return Turn(number, words, timeout, tuple(faults), _goal(dice, shape), dice.random() < 0.25)


def cost(chosen: Turn, shape: Shape) -> int:
    """The most plugs, in vCPUs, that the turn can use up of a TCG machine's budget.

    An operation may plug twice what it is about: once more after a restart of the guest.
    """
    slots = 2 * _plugs(chosen.words, shape) + _plugs(("scale", str(chosen.goal)), shape)
    for fault in chosen.faults:
        slots += _plugs(fault.words, shape) + (fault.name in ("raw-add", "operator-plug"))
        # what the snapshot has, for it to be loaded, and then what the guest has never heard of, once more
        slots += 2 * _pool(shape) * (fault.name == "revert")
    return (slots + 1) * shape.threads


def _operation(dice: random.Random, shape: Shape) -> tuple[str, ...]:
    name = dice.choices(("scale", "plug", "unplug", "offline", "online", "list", "plan"), (30, 20, 20, 9, 9, 6, 6))[0]
    if name == "list":
        return ("list",)
    if name == "plan":
        return ("plan", *_amount(dice, shape, dice.choice(("scale", "plug", "unplug"))))
    return _amount(dice, shape, name)


def _amount(dice: random.Random, shape: Shape, name: str) -> tuple[str, ...]:
    slots = [str(slot) for slot in dice.sample(range(1, 1 + _pool(shape)), dice.randint(1, 4))]
    if name == "scale":
        return ("scale", str(_goal(dice, shape)))
    if name in ("online", "offline"):
        return (name, *slots)
    atomic = ("--atomic",) if dice.random() < 0.2 else ()
    if dice.random() < 0.5:
        return (name, *atomic, "--slot", *slots)
    return (name, *atomic, "-n", str(shape.threads * dice.randint(1, 4)))


def _goal(dice: random.Random, shape: Shape) -> int:
    return shape.threads * dice.randint(1, min(_MOST, shape.slots))


def _pool(shape: Shape) -> int:
    return min(_POOL, shape.slots - 1)


def _fault(dice: random.Random, shape: Shape, words: tuple[str, ...]) -> Fault:
    names = [name for name, kind in KINDS.items() if (name in shape.also if kind.apart else name not in shape.without)]
    name = dice.choices(names, [KINDS[name].weight for name in names])[0]
    when = dice.choice(_moments(name, words))
    delay = 0.0 if when is When.BEFORE else dice.uniform(0.0, _LATEST if when is When.START else _SOON)
    extra: Mapping[str, Callable[[], tuple[str, ...]]] = {"second-vcpuctl": lambda: _operation(dice, shape)}
    return Fault(
        name,
        when,
        round(delay, 3),
        round(dice.uniform(0.2, 5.0), 3),
        dice.randint(1, _pool(shape)),
        extra.get(name, tuple)(),
        dice.randbytes(dice.randint(1, 3000)) if "garbage" in name else b"",
    )


def _moments(name: str, words: tuple[str, ...]) -> list[When]:
    kind = KINDS[name]
    moments = [When.BEFORE] * 2 if kind.before else []
    if kind.during:
        moments.append(When.START)
        if words[0] in ("plug", "scale"):
            moments.append(When.ADD)
        if words[0] in ("unplug", "scale"):
            moments.append(When.DEL)
    return moments


def _two_heavy(fault: Fault, others: list[Fault]) -> bool:
    return KINDS[fault.name].heavy and any(KINDS[other.name].heavy for other in others)


def _plugs(words: tuple[str, ...], shape: Shape) -> int:
    """The slots that the operation can fill at most."""
    if not words or words[0] not in ("plug", "scale"):
        return 0
    if "--slot" in words:
        return len(words) - words.index("--slot") - 1
    return -(-int(words[-1]) // shape.threads)
