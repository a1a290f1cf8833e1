# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest
from kit.chaos.judge import told
from kit.chaos.libvirt_home import Doing, differ, marked


def said(execute: str, target: str, number: str = "libvirt-7") -> dict[str, Any]:
    return {"execute": execute, "id": number, "arguments": {"id": target}}


@pytest.mark.parametrize(
    ("when", "target", "doing", "others"),
    [
        (5.0, "vcpu3", Doing(4.9, 5.1, "vcpu3"), True),
        (5.0, "vcpu3", Doing(4.9, math.inf, "vcpu3"), True),
        (5.0, "vcpu4", Doing(4.9, 5.1, ""), True),
        (5.0, "vcpu4", Doing(4.9, 5.1, "vcpu3"), False),
        (6.0, "vcpu3", Doing(4.9, 5.1, "vcpu3"), False),
        (4.0, "vcpu3", Doing(4.9, 5.1, "vcpu3"), False),
    ],
    ids=["meant", "not ended", "any device", "another device", "after", "before"],
)
def test_a_command_has_others_as_its_reason_by_time_and_device(
    when: float, target: str, doing: Doing, *, others: bool
) -> None:
    ((_, command),) = marked([(when, said("device_del", target))], [doing])
    assert command["id"] == ("lab-libvirt-7" if others else "libvirt-7")
    assert told([("list",)], [command]) == ([] if others else [f"vcpuctl list: sent device_del of {target}"])


def test_only_commands_that_plug_and_unplug_are_others() -> None:
    look = {"execute": "query-cpus-fast", "id": "libvirt-8"}
    assert marked([(5.0, look)], [Doing(4.0, 6.0, "")]) == [(5.0, look)]


def test_the_number_of_a_slot_is_read_from_libvirt_s_ids() -> None:
    commands = [said("device_add", "vcpu3"), said("device_add", "vcpu13")]
    assert told([("plug", "--slot", "3")], commands) == ["vcpuctl plug --slot 3: sent device_add of vcpu13"]


@pytest.mark.parametrize(
    ("slots", "record", "agree"),
    [([0, 3], [3, 0], True), ([0], [0, 3], False), ([0, 3], [0], False)],
    ids=["agree", "behind", "behind its back"],
)
def test_libvirt_s_record_is_held_against_qemu(slots: list[int], record: list[int], *, agree: bool) -> None:
    assert (differ(slots, record) == []) is agree
