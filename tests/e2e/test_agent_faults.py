# SPDX-License-Identifier: Apache-2.0
"""An agent that is absent, stopped, killed, late or restarted: what vcpuctl says, how soon, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import ARRIVED, PID, Operation, run, when
from kit.ended import Ended

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Seconds after which a command is given up that says that nobody answers, and waits for no more than its --timeout.
QUICK = 60.0
#: Seconds for an operation in which the agent is started anew (importing gRPC takes 2 to 9 s in an emulated guest).
RESTARTED = 55.0

#: What can be done to the agent, by a shell that knows its ``$pid``. systemctl takes a while to be started: the agent
#: stands still for that long, so that the moment stays the one that was chosen.
DEEDS = {
    "killed": "kill -KILL $pid",
    "restarted": "kill -STOP $pid; systemctl --no-block restart vcpud; kill -CONT $pid",
}

#: The last of nine CPUs has just gone offline.
GOING = "! { read -r online </sys/devices/system/cpu/cpu8/online && [ $online = 1 ]; }"


def override(machine: Machine, setting: str) -> None:
    """Change how systemd restarts the agent, until the guest's end."""
    folder = "/run/systemd/system/vcpud.service.d"
    machine.vm.shell(
        f"mkdir -p {folder}; printf '[Service]\\n{setting}\\n' >{folder}/t.conf; systemctl daemon-reload", 30
    )


def unchanged(machine: Machine) -> None:
    """QEMU was told to add and remove nothing, and has one CPU."""
    told = {command["execute"] for _, command in machine.vm.qmp_commands()}
    assert not told & {"device_add", "device_del"}
    assert set(machine.filled()) == machine.online() == {0}


def done(machine: Machine, ended: Ended, slots: set[int]) -> None:
    """The operation says that it is done, and both QEMU and the guest's console agree."""
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    settled(machine, slots)


def settled(machine: Machine, slots: set[int]) -> None:
    """These slots, and no others, are filled in QEMU and online in the guest."""
    assert set(machine.filled()) == slots
    assert machine.online() == slots


def refused_for_want_of_an_agent(ended: Ended, *codes: str) -> None:
    assert ended.status == 5, ended.stdout + ended.stderr
    assert ended.outcome in codes
    assert ended.json["error"]["hint"]


def test_without_a_running_agent_nothing_is_changed_and_starting_it_is_enough(machine: Machine) -> None:
    machine.vm.shell("systemctl stop vcpud", timeout=30)
    refused_for_want_of_an_agent(run(machine, "--timeout", "2", "plug", within=QUICK), "agent-absent")
    refused_for_want_of_an_agent(run(machine, "--timeout", "2", "scale", "4", within=QUICK), "agent-absent")
    listed = run(machine, "list", within=QUICK)
    assert (listed.status, listed.json["agent"]) == (0, None)
    assert [slot["state"] for slot in listed.slots.values()] == ["unknown", *["empty"] * 15]
    unchanged(machine)

    machine.vm.shell("systemctl start vcpud", timeout=60)
    done(machine, run(machine, "plug", within=60), {0, 1})


def test_a_guest_without_the_package_is_told_apart_by_what_to_install(machines: Callable[..., Machine]) -> None:
    machine = machines(debs=None)
    ended = run(machine, "--timeout", "300", "plug", within=20 + QUICK)  # not all of it: no agent may ever come
    refused_for_want_of_an_agent(ended, "agent-absent")
    assert "install vcpu-guest" in ended.json["error"]["hint"]
    unchanged(machine)


def test_a_stopped_agent_is_said_in_the_time_given_and_goes_on_where_it_was_stopped(machine: Machine) -> None:
    machine.vm.shell(f"kill -STOP {PID}")
    refused_for_want_of_an_agent(run(machine, "--timeout", "3", "plug", within=QUICK), "no-answer")
    unchanged(machine)

    machine.vm.shell(f"kill -CONT {PID}")
    done(machine, run(machine, "plug", within=30), {0, 1})


def test_an_agent_stopped_in_the_middle_delays_the_operation_by_just_that_long(machine: Machine) -> None:
    when(machine, ARRIVED, "kill -STOP $pid")
    with Operation(machine, "scale", "5") as operation:
        operation.told("device_add", 2)
        machine.vm.shell(f"until grep -q '^State:.T' /proc/{PID}/status; do busybox usleep 10000; done")
        assert operation.process.poll() is None
        machine.vm.shell(f"kill -CONT {PID}")
        done(machine, operation.ends(within=40), {0, 1, 2, 3, 4})


def test_an_agent_stopped_for_good_is_unknown_at_the_timeout_and_the_next_run_ends_right(machine: Machine) -> None:
    when(machine, ARRIVED, "kill -STOP $pid")
    ended = run(machine, "--timeout", "6", "scale", "5", within=6 + QUICK)
    assert (ended.status, ended.outcome) == (4, "unknown")
    assert all(slot["reason"] for slot in ended.slots.values() if slot["outcome"] == "unknown")
    assert machine.device_dels() == 0

    machine.vm.shell(f"kill -CONT {PID}")
    done(machine, run(machine, "scale", "5", within=40), {0, 1, 2, 3, 4})


@pytest.mark.parametrize("deed", [pytest.param("killed", marks=pytest.mark.slow), "restarted"])
def test_an_agent_lost_in_the_middle_of_an_online_comes_back_and_the_same_run_is_done(
    machine: Machine, deed: str
) -> None:
    when(machine, ARRIVED, DEEDS[deed])
    done(machine, run(machine, "scale", "5", within=RESTARTED), {0, 1, 2, 3, 4})
    done(machine, run(machine, "scale", "5", within=20), {0, 1, 2, 3, 4})
    assert machine.device_dels() == 0


@pytest.mark.parametrize("deed", ["killed", pytest.param("restarted", marks=pytest.mark.slow)])
def test_an_agent_lost_in_the_middle_of_an_offline_comes_back_and_the_same_run_is_done(
    machine: Machine, deed: str
) -> None:
    done(machine, run(machine, "scale", "9", within=60), set(range(9)))
    when(machine, GOING, DEEDS[deed])
    done(machine, run(machine, "scale", "1", within=RESTARTED), {0})
    done(machine, run(machine, "scale", "1", within=20), {0})


@pytest.mark.parametrize("number", ["TERM", pytest.param("KILL", marks=pytest.mark.slow)])
def test_an_agent_that_ends_in_the_middle_leaves_an_unknown_that_the_next_run_settles(
    machine: Machine, number: str
) -> None:
    override(machine, "Restart=no")
    when(machine, ARRIVED, f"kill -{number} $pid")
    ended = run(machine, "--timeout", "20", "scale", "5", within=20 + QUICK)
    assert (ended.status, ended.outcome) == (4, "unknown")
    reasons = {slot["reason"]["code"] for slot in ended.slots.values() if slot["outcome"] == "unknown"}
    assert "agent-lost" in reasons
    refused_for_want_of_an_agent(run(machine, "--timeout", "2", "scale", "5", within=QUICK), "agent-absent")
    machine.vm.shell("systemctl reset-failed vcpud; systemctl start vcpud", timeout=60)
    done(machine, run(machine, "scale", "5", within=60), {0, 1, 2, 3, 4})


@pytest.mark.slow
def test_an_agent_that_comes_late_finds_the_operation_waiting_for_it(machine: Machine) -> None:
    # Later than the grace that a kernel has to show a CPU: that must not be held against it.
    override(machine, "RestartSec=16s")
    when(machine, ARRIVED, "kill -TERM $pid")
    ended = run(machine, "scale", "5", within=RESTARTED + 16)
    done(machine, ended, {0, 1, 2, 3, 4})
    assert ended.json["elapsed"] > 16
