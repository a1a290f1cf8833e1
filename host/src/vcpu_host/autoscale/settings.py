# SPDX-License-Identifier: Apache-2.0
"""What the operator wants of one VM: the table [autoscale] of its file in vms.d.

[autoscale]
min = 1
max = 8
mode = "act"                    # "observe", the default, says what it would do and does nothing

[[autoscale.schedule]]
days = ["mon", "tue", "wed", "thu", "fri"]
from = "08:00"
to = "18:00"
min = 4
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

#: As they are written; their index is the weekday's number, Monday first.
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
#: More vCPUs than any QEMU has.
_MOST = 65536


class Mode(StrEnum):
    """Whether decisions are carried out, or only told."""

    OBSERVE = "observe"
    ACT = "act"


class SettingsError(ValueError):
    """The table is not right; the text says what."""


@dataclass(frozen=True, slots=True)
class WallTime:
    """A time of this host's calendar: ``weekday`` from 0 (Monday), ``minute`` of the day."""

    weekday: int
    minute: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A higher minimum at some times: from ``begin`` to ``end``, minutes of the day, on ``days``.

    If it ends before it begins it goes past midnight; the day is that on which it began.
    """

    days: frozenset[int]
    begin: int
    end: int
    min: int

    def holds(self, at: WallTime) -> bool:
        """Return whether it is in force at this time."""
        if self.begin < self.end:
            return at.weekday in self.days and self.begin <= at.minute < self.end
        if at.minute >= self.begin:
            return at.weekday in self.days
        return at.minute < self.end and (at.weekday - 1) % 7 in self.days


@dataclass(frozen=True, slots=True)
class Settings:
    """What the policy goes by. Times are in seconds, shares between 0 and 1.

    ``target``: CPUs that are busy for a larger share are full: if tasks wait besides, the VM grows.
    ``pressure``: tasks wait when that is so for a larger share of the time (PSI). ``steal``: the host is short when it
    takes a larger share. The other fields are told by their comments.
    """

    max: int
    min: int = 1
    mode: Mode = Mode.OBSERVE
    target: float = 0.8
    pressure: float = 0.1
    steal: float = 0.1
    #: Over how much time load is averaged before the VM grows.
    up_window: float = 2.0
    #: It shrinks to the highest need of so much time, and not until so much after it grew.
    down_window: float = 120.0
    #: Between the end of one growth and the next, and of one shrinking and the next.
    up_pause: float = 2.0
    down_pause: float = 30.0
    #: After it shrank it does not grow before so much time.
    turn_pause: float = 10.0
    #: How long an operator's own command holds the loop off.
    operator_hold: float = 600.0
    #: A guest that has booted more recently is busy with that.
    boot_grace: float = 60.0
    schedules: tuple[Schedule, ...] = ()

    def floor(self, at: WallTime | None) -> int:
        """Return the minimum at this time, never above the maximum."""
        held = [schedule.min for schedule in self.schedules if at is not None and schedule.holds(at)]
        return min(max([self.min, *held]), self.max)


#: The keys of the table beside ``mode`` and ``schedule``: what each may be, both ends included.
_COUNTS = {"min": (1, _MOST), "max": (1, _MOST)}
_SHARES = {"target": (0.1, 1.0), "pressure": (0.0, 1.0), "steal": (0.0, 1.0)}
_TIMES = {
    "up_window": (0.2, 60.0),
    "down_window": (1.0, 86400.0),
    "up_pause": (0.0, 3600.0),
    "down_pause": (0.0, 86400.0),
    "turn_pause": (0.0, 86400.0),
    "operator_hold": (0.0, 604800.0),
    "boot_grace": (0.0, 3600.0),
}
KEYS = (*_COUNTS, "mode", *_SHARES, *_TIMES, "schedule")


def parse(table: object) -> Settings:
    """Return the settings that the table holds. Raise SettingsError, with words that name the key."""
    if not isinstance(table, Mapping):
        raise SettingsError("autoscale is no table")
    _known(table, KEYS, "autoscale")
    if "max" not in table:
        raise SettingsError("autoscale.max is missing: the most vCPUs that the VM may get")
    values: dict[str, Any] = {}
    for keys, whole in ((_COUNTS, True), (_SHARES, False), (_TIMES, False)):
        for key, (least, most) in keys.items():
            if key in table:
                values[key] = _number(table[key], f"autoscale.{key}", least, most, whole=whole)
    if "mode" in table:
        values["mode"] = _mode(table["mode"])
    schedules = table.get("schedule", [])
    if not isinstance(schedules, list):
        raise SettingsError("autoscale.schedule is written [[autoscale.schedule]]")
    settings = Settings(**values, schedules=tuple(_schedule(each) for each in schedules))
    if settings.min > settings.max:
        raise SettingsError(f"autoscale.min is {settings.min}, more than autoscale.max, {settings.max}")
    for each in settings.schedules:
        if each.min > settings.max:
            raise SettingsError(f"autoscale.schedule.min is {each.min}, more than autoscale.max, {settings.max}")
    return settings


def to_json(settings: Settings) -> dict[str, Any]:
    """Return the settings as a document has them."""
    document = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "schedules"}
    return {
        **document,
        "mode": str(settings.mode),
        "schedule": [
            {
                "days": [DAYS[day] for day in sorted(each.days)],
                "from": _clock(each.begin),
                "to": _clock(each.end),
                "min": each.min,
            }
            for each in settings.schedules
        ],
    }


def _known(table: Mapping[str, object], keys: tuple[str, ...], what: str) -> None:
    unknown = set(table) - set(keys)
    if unknown:
        raise SettingsError(f"unknown key {min(unknown)!r} in {what}; known are {', '.join(sorted(keys))}")


def _number(value: object, name: str, least: float, most: float, *, whole: bool) -> float:
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not isinstance(value, int | float) or not least <= value <= most:
        raise SettingsError(f"{name} must be {'a whole number' if whole else 'a number'} from {least:g} to {most:g}")
    return value if whole else float(value)


def _mode(value: object) -> Mode:
    if value not in tuple(Mode):
        raise SettingsError(f'autoscale.mode must be "observe" or "act", not {value!r:.40}')
    return Mode(str(value))


def _schedule(table: object) -> Schedule:
    name = "autoscale.schedule"
    if not isinstance(table, Mapping):
        raise SettingsError(f"{name} is written [[autoscale.schedule]]")
    _known(table, ("days", "from", "to", "min"), name)
    days = table.get("days", list(DAYS))
    if not isinstance(days, list) or not days or not all(day in DAYS for day in days):
        raise SettingsError(f"{name}.days must be a list of {', '.join(DAYS)}")
    begin, end = _minute(table.get("from", "00:00"), f"{name}.from"), _minute(table.get("to", "24:00"), f"{name}.to")
    if begin == end:
        raise SettingsError(f"{name} begins and ends at the same time")
    if "min" not in table:
        raise SettingsError(f"{name}.min is missing")
    return Schedule(
        frozenset(DAYS.index(day) for day in days),
        begin,
        end,
        int(_number(table["min"], f"{name}.min", 1, _MOST, whole=True)),
    )


def _minute(value: object, name: str) -> int:
    found = re.fullmatch(r"(\d\d):(\d\d)", value) if isinstance(value, str) else None
    minute = -1 if found is None or int(found[2]) > 59 else 60 * int(found[1]) + int(found[2])
    if not 0 <= minute <= _DAY:
        raise SettingsError(f'{name} must be a time such as "08:00", not {value!r:.40}')
    return minute


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
