# SPDX-License-Identifier: Apache-2.0
"""Slot selectors as users write them, which is as ``vcpuctl list`` shows slots.

| selector | names |
|---|---|
| ``5``, ``4-7`` | slots by index |
| ``vcpu-5`` | the slot of the CPU with this id in QEMU |
| ``socket-id=1,core-id=0`` | every slot with these props; the "-id" may be left out |
| ``cpu5``, ``cpu8,cpu9`` | the slot whose CPUs the guest calls so; its number is not the slot's index |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..model import Props, Slot

#: What Linux calls a CPU, and several of one slot as tables show them.
_GUEST_NAMES = r"cpu[0-9]{1,9}(?:,cpu[0-9]{1,9})*"
_RANGE = r"([0-9]{1,11})-([0-9]{1,11})"


class SelectorError(ValueError):
    """A selector that names no slot of this VM, or the same slot twice; its text is for people."""


class GuestUnknownError(SelectorError):
    """A selector names a CPU by the guest's number, and the guest has not been asked for its CPUs."""


def select(
    slots: Sequence[Slot], selectors: Sequence[str], guest_cpus: Mapping[int, int] | None = None
) -> tuple[Slot, ...]:
    """Return those of a VM's ``slots`` that the selectors name, in slot order.

    ``guest_cpus`` is the slot index by the number of a guest's CPU; None if the guest has not been asked.

    Raise SelectorError if a selector names nothing, if two name the same slot, or if the guest's numbers name a part of
    a slot: its threads go together. Raise GuestUnknownError if guest_cpus is needed and None.
    """
    named_cpus = {number for selector in selectors for number in _guest_numbers(selector)}
    chosen: dict[int, str] = {}
    for selector in selectors:
        for slot in _matches(slots, selector, guest_cpus):
            if slot.index in chosen and not _both_by_guest(chosen[slot.index], selector):
                raise SelectorError(_twice(slot.index, chosen[slot.index], selector))
            chosen[slot.index] = selector
    for index, selector in chosen.items():
        if guest_cpus is not None and _guest_numbers(selector) and slots[index].device_id != selector.strip():
            _check_whole(index, {number for number, at in guest_cpus.items() if at == index}, named_cpus)
    return tuple(slots[index] for index in sorted(chosen))


def _both_by_guest(first: str, second: str) -> bool:
    """Return whether two selectors name different CPUs of the guest, which may be threads of one slot."""
    one, other = set(_guest_numbers(first)), set(_guest_numbers(second))
    return bool(one and other) and not one & other


def _check_whole(index: int, cpus: set[int], named: set[int]) -> None:
    """Raise SelectorError if only some of the slot's CPUs are named."""
    if not cpus <= named:
        whole = ",".join(f"cpu{number}" for number in sorted(cpus))
        raise SelectorError(f"the CPUs of slot {index} go together: name the slot, {index}, or all of them, {whole}")


def _twice(index: int, first: str, second: str) -> str:
    text = f"slot {index} is named twice, by {first!r} and by {second!r}"
    props = "=" in first and "=" in second
    return f"{text}; if both are of one slot, join them: {first.strip()},{second.strip()}" if props else text


def _matches(slots: Sequence[Slot], selector: str, guest_cpus: Mapping[int, int] | None) -> list[Slot]:
    text = selector.strip()
    if text.isascii() and text.isdigit():
        return [slots[_index(text, slots)]]
    numbers = re.fullmatch(_RANGE, text)
    if numbers is not None:
        first, last = (_index(number, slots) for number in numbers.groups())
        if first > last:
            raise SelectorError(f"{text} is no range of slots: its first number is above its last")
        return list(slots[first : last + 1])
    if "=" in text:
        wanted = _parse_props(text, slots)
        found = [slot for slot in slots if all(_same(slot.props, key, value) for key, value in wanted.items())]
        if not found:
            raise SelectorError(f"no slot has {text}")
        return found
    found = [slot for slot in slots if text and slot.device_id == text]
    if _guest_numbers(text):
        return _by_guest(slots, text, guest_cpus, found)
    if not found:
        raise SelectorError(
            f"{selector!r} is no slot index, no id of a plugged CPU, no props (name=value,...), and no CPU of the guest"
        )
    return found


def _index(text: str, slots: Sequence[Slot]) -> int:
    index = int(text) if len(text) < 12 else len(slots)
    if index >= len(slots):
        raise SelectorError(f"there is no slot {text}: this VM has slots 0 to {len(slots) - 1}")
    return index


def _guest_numbers(selector: str) -> list[int]:
    """Return the numbers of a selector that is made of the guest's names of CPUs; none if it is not."""
    text = selector.strip()
    return [int(name[3:]) for name in text.split(",")] if re.fullmatch(_GUEST_NAMES, text) else []


def _by_guest(
    slots: Sequence[Slot], text: str, guest_cpus: Mapping[int, int] | None, by_id: Sequence[Slot]
) -> list[Slot]:
    """Return the slots whose CPUs the guest calls so. A device of QEMU may have such an id: ``by_id`` are those."""
    if guest_cpus is None:
        if by_id:
            return list(by_id)
        raise GuestUnknownError(f"{text} is the guest's name of a CPU, and the guest is not asked: name the slot")
    found = dict.fromkeys(_shown(text, guest_cpus, missing_is_error=not by_id))
    if by_id and any(index != by_id[0].index for index in found):
        at = next(iter(found))
        raise SelectorError(
            f"{text} is the id of the CPU in slot {by_id[0].index}, and the guest's name of the one in slot {at}: "
            "name the slot by its index"
        )
    return list(by_id) or [slots[index] for index in found]


def _shown(text: str, guest_cpus: Mapping[int, int], *, missing_is_error: bool) -> Iterator[int]:
    """Yield the slots' indices of the guest's CPUs."""
    for number in _guest_numbers(text):
        if number in guest_cpus:
            yield guest_cpus[number]
        elif missing_is_error:
            raise SelectorError(f"no slot shows a cpu{number} in the guest")


def _parse_props(text: str, slots: Sequence[Slot]) -> dict[str, str]:
    known = {key for slot in slots for key in slot.props}
    wanted: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value:
            raise SelectorError(f"{part!r} in {text!r} is not name=value")
        if key not in known and f"{key}-id" in known:
            key = f"{key}-id"
        if key not in known:
            raise SelectorError(f"slots of this VM have no {key!r}: they have {', '.join(sorted(known))}")
        if key in wanted:
            raise SelectorError(f"{key!r} is given twice in {text!r}")
        wanted[key] = value
    return wanted


def _same(props: Props, key: str, value: str) -> bool:
    return key in props and str(props[key]) == value
