# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from kit.chaos import judge
from kit.chaos.judge import Seen
from kit.e2e.platforms import by_acpi_path, by_two_threads
from kit.ended import Ended
from kit.lab import GuestCpu

PATH = "/machine/peripheral"
#: Slot 2 is whole, slot 3 offline, the others empty but for the boot CPU's.
SEEN = Seen(
    {0: "/machine/unattached/device[0]", 2: f"{PATH}/vcpu-2", 3: f"{PATH}/chaos-3"},
    {0: {0: True}, 2: {1: True}, 3: {2: False}},
    5,
    1,
)
WHOLE = Seen({0: "/machine/unattached/device[0]", 2: f"{PATH}/vcpu-2"}, {0: {0: True}, 2: {1: True}}, 5, 1)
REASON = {"code": "agent-lost", "who": "agent", "text": "it is gone", "hint": "start it"}


def part(slot: int, outcome: str, reason: object = None) -> dict[str, Any]:
    return {"slot": slot, "id": f"vcpu-{slot}", "outcome": outcome, "reason": reason}


def result(status: int, outcome: str, *slots: Mapping[str, Any], reason: object = None) -> Ended:
    document = {"outcome": outcome, "reason": reason, "slots": list(slots)}
    return Ended(status, json.dumps(document), "")


def test_both_sides_are_joined_by_identity() -> None:
    reply: list[dict[str, Any]] = [
        {"props": {}},
        {"qom-path": f"{PATH}/vcpu-1"},
        {"qom-path": "/machine/unattached/device[0]"},
    ]
    guest = {
        "cpu0": GuestCpu(online=True, path=r"\_SB_.CPUS.C000", apicid=0),
        "cpu7": GuestCpu(online=False, path=r"\_SB_.CPUS.C001", apicid=None),
    }
    seen = judge.see(reply, guest, by_acpi_path, 1)
    assert seen.filled == {1: f"{PATH}/vcpu-1", 0: "/machine/unattached/device[0]"}
    assert seen.cpus == {0: {0: True}, 1: {7: False}}
    assert [seen.state(slot) for slot in range(3)] == ["online", "offline", "empty"]
    assert seen.online == 1
    core = {f"cpu{n}": GuestCpu(online=n == 2, path=str(n), apicid=None) for n in (2, 3)}
    assert judge.see([{}, {"qom-path": "x"}, {}], core, by_two_threads, 2).state(1) == "partial"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (result(0, "done", part(2, "done")), "plug --slot 2"),
        (result(1, "failed", part(2, "failed", REASON)), "plug --slot 2"),
        (result(3, "refused", reason=REASON), "scale 99"),
        (result(4, "unknown", part(1, "done"), part(2, "unknown", REASON)), "scale 3"),
        (result(5, "unknown", part(2, "unknown", REASON), reason={**REASON, "code": "qemu-gone"}), "scale 3"),
        (result(6, "partial", part(1, "done"), part(2, "failed", REASON)), "plug -n 2"),
        (Ended(5, json.dumps({"error": REASON, "exit_status": 5}), "vcpuctl: it is gone"), "list"),
        (Ended(0, json.dumps({"slots": []}), ""), "list"),
        (Ended(3, json.dumps({"steps": [], "refusals": [{}]}), ""), "plan plug"),
        (Ended(5, json.dumps({"steps": [], "refusals": [{"unreachable": True}]}), ""), "plan plug"),
    ],
)
def test_an_ending_as_it_must_be_is_no_violation(ended: Ended, words: str) -> None:
    assert judge.ending(words.split(), ended) == []


@pytest.mark.parametrize(
    ("ended", "what"),
    [
        (result(1, "done", part(2, "done")), "done with status 1"),
        (result(0, "done", part(2, "unknown", REASON)), "done of slots"),
        (result(0, "partial", part(1, "done"), part(2, "failed", REASON)), "partial with status 0"),
        (result(6, "partial", part(1, "done"), part(2, "unknown", REASON)), "partial of slots"),
        (result(1, "failed", part(2, "failed")), "without a reason"),
        (result(3, "refused", reason={"code": "x", "who": "guest"}), "a reason without text"),
        (result(3, "refused", part(2, "done")), "refused of slots"),
        (result(4, "unknown", part(2, "done")), "unknown of slots"),
        (Ended(0, json.dumps({"error": REASON, "exit_status": 0}), ""), "error agent-lost with status 0"),
        (Ended(5, json.dumps({"error": REASON, "exit_status": 3}), ""), "error agent-lost with status 5"),
        (Ended(1, "", "Traceback (most recent call last):\n  x\nKeyError: 3\n"), "a traceback: KeyError: 3"),
        (Ended(0, "", ""), "no JSON document"),
        (Ended(-9, "", ""), "no JSON document"),
    ],
)
def test_an_ending_that_contradicts_itself_is_one(ended: Ended, what: str) -> None:
    (found,) = judge.ending(["plug"], ended)
    assert what in found


def test_who_was_killed_says_nothing_and_need_not() -> None:
    assert judge.ending(["plug"], Ended(-9, "", ""), killed=True) == []
    assert judge.ending(["plug"], Ended(-11, "", ""), killed=True)


@pytest.mark.parametrize(
    ("words", "slots", "true"),
    [
        ("plug --slot 2", [2], True),
        ("plug --slot 3", [3], False),
        ("plug --slot 2", [], False),
        ("plug -n 2", [2], False),
        ("plug --atomic -n 1", [2], True),
        ("online 2", [2], True),
        ("online 3", [3], False),
        ("offline 3", [3], True),
        ("offline 2", [2], False),
        ("unplug --slot 4", [4], True),
        ("unplug --slot 3", [3], False),
        ("scale 2", [2], False),
    ],
)
def test_what_is_done_is_so_by_the_lab_s_own_eyes(words: str, slots: list[int], true: bool) -> None:
    ended = result(0, "done", *(part(slot, "done") for slot in slots))
    assert bool(judge.truth(words.split(), ended, SEEN)) is not true


def test_a_goal_is_reached_by_exactly_so_many_and_nothing_halfway() -> None:
    assert judge.truth(["scale", "2"], result(0, "done", part(2, "done"), part(3, "done")), WHOLE) == []
    assert judge.settled(2, WHOLE) == []
    assert judge.settled(3, WHOLE)
    assert judge.settled(2, SEEN)
    stranger = Seen(WHOLE.filled, {**WHOLE.cpus, 4: {3: False}}, 5, 1)
    assert "guest CPUs of empty slots [4]" in judge.settled(2, stranger)[0]


def listing() -> dict[str, Any]:
    def slot(index: int, state: str, name: str | None, path: str | None, *threads: tuple[int | None, bool]) -> object:
        shown = [{"guest_cpu": number, "online": online} for number, online in threads]
        return {"slot": index, "state": state, "id": name, "qom_path": path, "threads": shown}

    return {
        "agent": {},
        "vm": {"status": "running", "plugged_vcpus": 3, "online_vcpus": 2, "possible_vcpus": 5},
        "slots": [
            slot(0, "online", None, "/machine/unattached/device[0]", (0, True)),
            slot(1, "empty", None, None, (None, False)),
            slot(2, "online", "vcpu-2", f"{PATH}/vcpu-2", (1, True)),
            slot(3, "offline", "chaos-3", f"{PATH}/chaos-3", (2, False)),
            slot(4, "empty", None, None, (None, False)),
        ],
        "unexplained_guest_cpus": [],
    }


def test_a_list_that_agrees_is_no_violation() -> None:
    assert judge.listed(listing(), SEEN) == []


@pytest.mark.parametrize(
    ("slot", "change"),
    [
        (3, {"state": "online"}),
        (2, {"id": None}),
        (4, {"state": "plugged"}),
        (2, {"qom_path": f"{PATH}/vcpu-3"}),
        (2, {"threads": [{"guest_cpu": 2, "online": True}]}),
        (3, {"threads": [{"guest_cpu": 2, "online": True}]}),
        (3, {"threads": []}),
        (3, {"pending": {"operation": "unplug", "id": "vcpu-3"}}),
    ],
)
def test_a_list_that_differs_in_one_slot_is_one(slot: int, change: dict[str, Any]) -> None:
    document = listing()
    document["slots"][slot].update(change)
    (found,) = judge.listed(document, SEEN)
    assert f"slot {slot}" in found


def test_sums_a_missing_agent_and_strangers_are_looked_at_too() -> None:
    for change in ({"agent": None}, {"unexplained_guest_cpus": [9]}, {"slots": listing()["slots"][:-1]}):
        assert len(judge.listed({**listing(), **change}, SEEN)) == 1
    assert len(judge.listed({**listing(), "vm": {**listing()["vm"], "online_vcpus": 3}}, SEEN)) == 1


def command(name: str, slot: int, **more: str) -> dict[str, Any]:
    return {"execute": name, "arguments": {"id": f"vcpu-{slot}"}, **more}


@pytest.mark.parametrize(
    ("words", "sent", "fits"),
    [
        ("plug --slot 2", [("device_add", 2)], True),
        ("plug --slot 2", [("device_add", 3)], False),
        ("plug --slot 2", [("device_del", 2)], False),
        ("plug --slot 2", [("device_add", 2), ("device_del", 2)], True),
        ("unplug --slot 2 3", [("device_del", 3)], True),
        ("unplug --slot 2", [("device_del", 3)], False),
        ("unplug -n 2", [("device_add", 3)], False),
        ("scale 2", [("device_del", 3), ("device_add", 4)], True),
        ("offline 2", [("device_del", 2)], False),
        ("plan scale 4", [("device_add", 2)], False),
        ("list", [("device_add", 2)], False),
    ],
)
def test_qemu_is_told_only_what_was_asked_for(words: str, sent: list[tuple[str, int]], fits: bool) -> None:
    assert bool(judge.told([words.split()], [command(*one, id="x") for one in sent])) is not fits


def test_the_lab_s_own_commands_are_not_held_against_the_product() -> None:
    assert judge.told([["list"]], [command("device_del", 2, id="lab-7")]) == []
    assert judge.told([["list"]], [command("device_del", 2)])


def test_of_two_at_work_each_may_do_its_own() -> None:
    both = [["list"], ["unplug", "--slot", "4"]]
    assert judge.told(both, [command("device_del", 4)]) == []
    assert judge.told(both, [command("device_del", 3)])


def test_an_agent_that_grows_is_told_from_one_that_only_wavers() -> None:
    level = [(30000, 12), (31000, 12), (33000, 14), (32000, 12)] * 2
    assert judge.level(level) == []
    assert "kB resident" in judge.level([(30000 + 3000 * turn, 12) for turn in range(8)])[0]
    assert "descriptors" in judge.level([(30000, 12 + turn) for turn in range(8)])[0]


def test_few_samples_say_nothing_about_growth() -> None:
    assert judge.level([(30000, 12), (90000, 90)]) == []


def test_a_lock_and_a_record_may_stay_and_nothing_else() -> None:
    name = "0123456789abcdef0123456789abcdef"
    before = {"old.tmp"}
    after = {*before, f"{name}.lock", "77-1234-99.lock", "77-1234-99.pending"}
    assert judge.leftovers(before, after) == []
    assert judge.leftovers(before, {*after, "77-1234-99.new", f"{name}.x"}) == [f"{name}.x", "77-1234-99.new"]


def test_the_socket_of_a_session_may_stay_only_where_a_vcpuctl_was_killed() -> None:
    socket = "link-0123456789abcdef.sock"
    assert judge.leftovers([], [socket]) == [socket]
    assert judge.leftovers([], [socket], killed=True) == []
