# SPDX-License-Identifier: Apache-2.0
"""Slot selectors as users write them: an index, a device id, or props such as ``socket-id=1,core-id=0``.

The props' names may be given without their "-id", as tables show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..model import Props, Slot

#: What Linux calls a CPU. Its number is the guest's, and not the slot's index.
_GUEST_NAME = re.compile(r"cpu([0-9]{1,9})", re.ASCII)


class SelectorError(ValueError):
    """A selector that names no slot of this VM, or the same slot twice; its text is for people."""


def select(
    slots: Sequence[Slot], selectors: Sequence[str], guest_cpus: Mapping[int, int] | None = None
) -> tuple[Slot, ...]:
    """Those of a VM's ``slots`` that the selectors name, in slot order. Props name every slot that has them.

    Raises SelectorError if a selector names nothing, or if two name the same slot. ``guest_cpus``, slot by the number
    of a guest's CPU, is for its words only: which slot is meant is not left to the guest.
    """
    chosen: dict[int, str] = {}
    for selector in selectors:
        for slot in _matches(slots, selector, guest_cpus or {}):
            if slot.index in chosen:
                raise SelectorError(_twice(slot.index, chosen[slot.index], selector))
            chosen[slot.index] = selector
    return tuple(slots[index] for index in sorted(chosen))


def _twice(index: int, first: str, second: str) -> str:
    text = f"slot {index} is named twice, by {first!r} and by {second!r}"
    props = "=" in first and "=" in second
    return f"{text}; if both are of one slot, join them: {first.strip()},{second.strip()}" if props else text


def _matches(slots: Sequence[Slot], selector: str, guest_cpus: Mapping[int, int]) -> list[Slot]:
    text = selector.strip()
    if text.isascii() and text.isdigit():
        index = int(text) if len(text) < 12 else len(slots)
        if index >= len(slots):
            raise SelectorError(f"there is no slot {text}: this VM has slots 0 to {len(slots) - 1}")
        return [slots[index]]
    if "=" in text:
        wanted = _parse_props(text, slots)
        found = [slot for slot in slots if all(_same(slot.props, key, value) for key, value in wanted.items())]
        if not found:
            raise SelectorError(f"no slot has {text}: see the props column of vcpuctl list -o json")
        return found
    found = [slot for slot in slots if text and slot.device_id == text]
    if not found:
        raise SelectorError(_no_slot(selector, text, guest_cpus))
    return found


def _no_slot(selector: str, text: str, guest_cpus: Mapping[int, int]) -> str:
    guest_name = _GUEST_NAME.fullmatch(text)
    if guest_name is None:
        return f"{selector!r} is no slot index, no id of a plugged CPU, and no props (name=value,...)"
    slot = guest_cpus.get(int(guest_name[1]))
    if slot is None:
        return f"{text} is the guest's name of a CPU, not a slot's: name the slot that shows it, by its index"
    return f"{text} is the guest's name of the CPU in slot {slot}: name the slot, {slot}"


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
