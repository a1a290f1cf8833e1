# SPDX-License-Identifier: Apache-2.0
"""The commands that only look: what they show is so, and looking changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from kit.e2e.lines import JsonLines
from kit.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def state_of(slot: int, state: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a map shows the slot in that state."""
    return lambda document: document["slots"][slot]["state"] == state


def findings(machine: Machine, status: int) -> dict[str, dict[str, str]]:
    """What ``doctor`` finds, by code; it must end with that status."""
    ended = machine.vcpuctl("doctor")
    assert ended.status == status, ended.stdout + ended.stderr
    return {finding["code"]: finding for finding in ended.json["findings"]}


def test_watch_tells_every_change_that_others_make_and_ends_when_told(machine: Machine) -> None:
    before = machine.state()
    process = machine.vcpuctl.start("watch")
    lines = JsonLines(process)
    first = lines.until(lambda _: True, 60)
    assert (first["schema_version"], first["vm"]["online_vcpus"]) == (1, 1)
    assert [slot["state"] for slot in first["slots"]] == ["online", *["empty"] * 15]

    machine.raw_add(3, "foreign-1")
    lines.until(state_of(3, "offline"))
    machine.vm.shell(f"echo 1 > {machine.switch(3)}", timeout=30)
    online = lines.until(state_of(3, "online"))
    (thread,) = online["slots"][3]["threads"]
    number = machine.slots_in_guest()[3]["cpu"]
    assert (thread["guest_cpu"], thread["online"], online["vm"]["online_vcpus"]) == (number, True, 2)
    machine.vm.shell(f"echo 0 > {machine.switch(3)}", timeout=30)
    lines.until(state_of(3, "offline"))
    machine.vm.qmp.execute("device_del", id="foreign-1")
    lines.until(state_of(3, "empty"))

    # the monitor has one client, and so has the agent's port: the watch gives them up, and goes on
    assert machine.vcpuctl("plug", "--slot", "5").outcome == "done"
    lines.until(state_of(5, "online"))
    assert machine.vcpuctl("unplug", "--slot", "5").outcome == "done"
    lines.until(state_of(5, "empty"))

    machine.vm.shell("systemctl stop vcpud", timeout=30)
    gone = lines.until(lambda document: document["agent"] is None)
    assert gone["agent_trouble"]["code"] in {"agent-absent", "agent-lost"}
    assert gone["slots"][0]["state"] == "unknown"
    machine.vm.shell("systemctl start vcpud", timeout=60)
    lines.until(state_of(0, "online"), 60)

    process.send_signal(signal.SIGINT)
    assert lines.finish(20) == 0
    assert all(one != two for one, two in zip(lines.seen, lines.seen[1:], strict=False))
    assert machine.device_dels() == 2  # ours, and the unplug's
    assert machine.state() == before


def test_watch_ends_by_itself_when_its_time_is_up(machine: Machine) -> None:
    ended = machine.vcpuctl("--timeout", "1", "watch")
    assert ended.status == 0
    assert len(ended.stdout.splitlines()) == 1  # nothing has changed


def test_list_and_doctor_say_what_is_the_matter_with_the_agent(machine: Machine) -> None:
    healthy = findings(machine, 0)
    assert {finding["level"] for finding in healthy.values()} <= {"ok", "note", "warning"}
    assert {"qemu", "slots", "agent"} <= {code for code, finding in healthy.items() if finding["level"] == "ok"}
    assert machine.vm.accel != "tcg" or healthy["tcg-plug-budget"]["level"] == "warning"
    assert "no-channel" not in healthy
    assert "tcg-replug" not in healthy

    machine.vcpuctl("plug")
    machine.vm.shell("systemctl stop vcpud", timeout=30)
    machine.vm.shell(f"echo 0 > {machine.switch(1)}", timeout=30)
    now = machine.state()
    absent = findings(machine, 1)["agent-absent"]
    assert absent["level"] == "problem"
    assert "systemctl start vcpud" in absent["fix"]
    blind = machine.vcpuctl("list")
    assert blind.status == 0
    assert (blind.json["agent"], blind.json["agent_trouble"]["code"]) == (None, "agent-absent")
    assert blind.json["vm"]["online_vcpus"] is None
    assert [slot["state"] for slot in blind.json["slots"]] == ["unknown", "unknown", *["empty"] * 14]
    for words in (("plan", "plug"), ("plug",), ("unplug",), ("scale", "1"), ("scale", "9"), ("online", "1")):
        ended = machine.vcpuctl(*(() if words[0] == "plan" else ("--timeout", "2")), *words)
        if words[0] == "plan":
            assert (ended.status, ended.json["refusals"][0]["reason"]["code"]) == (5, "agent-absent")
        else:
            assert (ended.status, ended.outcome) == (5, "agent-absent"), ended.stdout
            assert "systemctl start vcpud" in ended.stderr
    assert machine.state() == now

    machine.vm.shell("systemctl start vcpud", timeout=60)
    assert "1" in findings(machine, 0)["slots-offline"]["text"]
    assert machine.vcpuctl("scale", "2").status == 0
    assert machine.online() == {0, 1}
    assert machine.vcpuctl("scale", "1").status == 0


def test_doctor_goes_on_where_others_end(machine: Machine) -> None:
    machine.vm.qmp.execute("stop")
    assert findings(machine, 1)["vm-not-running"]["level"] == "problem"
    machine.vm.qmp.execute("cont")
    machine.vm.qmp_socket.chmod(0o666)
    open_socket = findings(machine, 0)["open-socket"]
    assert (open_socket["level"], str(machine.vm.qmp_socket) in open_socket["text"]) == ("warning", True)
    table = machine.vcpuctl.wait(machine.vcpuctl.start("doctor", json_output=False))
    assert table.status == 0
    assert "warning" in table.stdout
    assert "fix: chmod o-rwx" in table.stdout
