# SPDX-License-Identifier: Apache-2.0
"""Slot selectors as users write them: an index, a device id, or props such as ``socket-id=1,core-id=0``."""

from __future__ import annotations

from collections.abc import Sequence

from .model import Props, Slot


class SelectorError(ValueError):
    """A selector that names no slot of this VM, or the same slot twice; its text is for people."""


def select(slots: Sequence[Slot], selectors: Sequence[str]) -> tuple[Slot, ...]:
    """Those of a VM's ``slots`` that the selectors name, in slot order. Props name every slot that has them.

    Raises SelectorError if a selector names nothing, or if two name the same slot.
    """
    chosen: dict[int, str] = {}
    for selector in selectors:
        for slot in _matches(slots, selector):
            if slot.index in chosen:
                raise SelectorError(f"slot {slot.index} is named twice, by {chosen[slot.index]!r} and by {selector!r}")
            chosen[slot.index] = selector
    return tuple(slots[index] for index in sorted(chosen))


def _matches(slots: Sequence[Slot], selector: str) -> list[Slot]:
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
        raise SelectorError(f"{selector!r} is no slot index, no id of a plugged CPU, and no props (name=value,...)")
    return found


def _parse_props(text: str, slots: Sequence[Slot]) -> dict[str, str]:
    known = {key for slot in slots for key in slot.props}
    wanted: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value:
            raise SelectorError(f"{part!r} in {text!r} is not name=value")
        if key not in known:
            raise SelectorError(f"slots of this VM have no {key!r}: they have {', '.join(sorted(known))}")
        if key in wanted:
            raise SelectorError(f"{key!r} is given twice in {text!r}")
        wanted[key] = value
    return wanted


def _same(props: Props, key: str, value: str) -> bool:
    return key in props and str(props[key]) == value
