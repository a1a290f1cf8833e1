# SPDX-License-Identifier: Apache-2.0
"""The table [autoscale] of a VM's file."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from vcpu_host.autoscale.settings import Mode, Settings, SettingsError, WallTime, parse, to_json


def _parsed(text: str) -> Settings:
    return parse(tomllib.loads(text)["autoscale"])


def test_a_maximum_is_all_that_it_takes_and_then_nothing_is_done() -> None:
    settings = _parsed("[autoscale]\nmax = 8\n")
    assert (settings.min, settings.max, settings.mode) == (1, 8, Mode.OBSERVE)


def test_all_keys_are_read_and_shown_as_they_were_written() -> None:
    text = """[autoscale]
min = 2
max = 8
mode = "act"
target = 0.7
pressure = 0.2
steal = 0.05
up_window = 1
down_window = 60
up_pause = 3
down_pause = 10
turn_pause = 5
operator_hold = 60
boot_grace = 0
[[autoscale.schedule]]
days = ["mon", "fri"]
from = "08:00"
to = "18:30"
min = 4
"""
    written = tomllib.loads(text)["autoscale"]
    assert to_json(_parsed(text)) == written


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("on", "no table"),
        ({}, "max is missing"),
        ({"max": 0}, "autoscale.max"),
        ({"max": True}, "autoscale.max"),
        ({"max": 2.5}, "autoscale.max"),
        ({"max": 4, "min": 5}, "more than autoscale.max"),
        ({"max": 4, "mode": "on"}, "autoscale.mode"),
        ({"max": 4, "target": 0}, "autoscale.target"),
        ({"max": 4, "target": "much"}, "autoscale.target"),
        ({"max": 4, "up_window": 0}, "autoscale.up_window"),
        ({"max": 4, "down_window": float("nan")}, "autoscale.down_window"),
        ({"max": 4, "windw": 3}, "unknown key 'windw'"),
        ({"max": 4, "schedule": {"min": 2}}, "[[autoscale.schedule]]"),
        ({"max": 4, "schedule": [{"min": 2, "day": "mon"}]}, "unknown key 'day'"),
        ({"max": 4, "schedule": [{"min": 2, "days": ["monday"]}]}, "schedule.days"),
        ({"max": 4, "schedule": [{"min": 2, "from": "8:00"}]}, "schedule.from"),
        ({"max": 4, "schedule": [{"min": 2, "to": "25:00"}]}, "schedule.to"),
        ({"max": 4, "schedule": [{"min": 2, "from": "08:00", "to": "08:00"}]}, "same time"),
        ({"max": 4, "schedule": [{}]}, "schedule.min"),
        ({"max": 4, "schedule": [{"min": 5}]}, "schedule.min is 5, more than autoscale.max, 4"),
    ],
)
def test_what_is_wrong_is_named(table: Any, word: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(word)):
        parse(table)


def test_a_schedule_raises_the_minimum_while_it_holds() -> None:
    settings = _parsed(
        '[autoscale]\nmax = 4\n[[autoscale.schedule]]\ndays = ["mon"]\nfrom = "08:00"\nto = "18:00"\nmin = 4\n'
    )
    assert settings.floor(WallTime(0, 8 * 60)) == 4
    assert settings.floor(WallTime(0, 18 * 60)) == 1
    assert settings.floor(WallTime(1, 9 * 60)) == 1
    assert settings.floor(None) == 1


def test_a_schedule_that_goes_past_midnight_belongs_to_the_day_on_which_it_began() -> None:
    settings = _parsed(
        '[autoscale]\nmax = 4\n[[autoscale.schedule]]\ndays = ["sun"]\nfrom = "22:00"\nto = "06:00"\nmin = 3\n'
    )
    assert settings.floor(WallTime(6, 23 * 60)) == 3
    assert settings.floor(WallTime(0, 5 * 60)) == 3
    assert settings.floor(WallTime(6, 5 * 60)) == 1
    assert settings.floor(WallTime(0, 23 * 60)) == 1
