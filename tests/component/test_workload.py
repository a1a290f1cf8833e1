# SPDX-License-Identifier: Apache-2.0
"""What vcpuctl makes of the guest's programs: told, spared or refused by the real command and the real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import done, run, stands
from kit.component.hostile import MOST_MEMORY
from kit.component.hostile import run as run_hostile
from kit.fakes.hostile import Answer, Hostile, Script
from kit.fakes.programs import FakePrograms, network
from kit.fakes.qemu import FakeVm
from vcpu_proto.v1 import agent_pb2 as pb

OLD, NEW = "6.1.0-56-cloud-amd64", "6.12.118+deb13-cloud-amd64"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vw", dir="/tmp") as name:
        yield Path(name)


def _notes(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {note["code"]: note for note in document["notes"]}


def _dels(vm: FakeVm) -> list[object]:
    return list(vm.steer.commands("device_del"))


def _offline_writes(vm: FakeVm) -> list[int]:
    return [number for number, goal in vm.writes() if not goal]


def test_an_unplug_tells_who_is_pinned_before_it_and_what_became_of_them_after_it(folder: Path) -> None:
    with FakeVm(folder, "--smp", "4") as vm:
        programs = FakePrograms(folder)
        programs.task(812, "3", comm=b"postgres", cgroup="/system.slice/db.service", awake=True)
        programs.task(900, "3", comm=b"sleeper")
        plan = run(vm, "unplug", "--slot", "3", "--dry-run").json
        pinned = _notes(plan)["pinned-threads"]
        assert (pinned["slots"], pinned["count"], pinned["level"]) == ([3], 2, "warning")
        first = next(who for who in pinned["who"] if who["pid"] == 812)
        assert (first["comm"], first["unit"], first["cgroup"]) == ("postgres", "db.service", "/system.slice/db.service")
        assert _offline_writes(vm) == []
        notes = _notes(done(vm, {0, 1, 2}, "unplug", "--slot", "3").json)
        assert set(notes) == {"pinned-threads", "affinity-broken", "affinity-asleep"}
        assert [who["pid"] for who in notes["affinity-broken"]["who"]] == [812]
        assert [who["pid"] for who in notes["affinity-asleep"]["who"]] == [900]


def test_an_amount_spares_what_somebody_is_pinned_to_unless_a_policy_is_asked_for(folder: Path) -> None:
    with FakeVm(folder, "--smp", "4") as vm:
        FakePrograms(folder).task(10, "3")
        by_policy = run(vm, "unplug", "--policy", "lowest", "--dry-run").json
        assert [step["slot"] for step in by_policy["steps"]] == [3]
        assert by_policy["requested"]["policy"] == "lowest"
        assert done(vm, {0, 1, 3}, "unplug").json["notes"] == []


def _pinned(programs: FakePrograms) -> None:
    programs.task(10, "3")


def _two(programs: FakePrograms) -> None:
    programs.task(10, "3,9")


def _root_partition(programs: FakePrograms) -> None:
    programs.cgroup("/rt", cpus="3", partition="root")


def _isolated_partition(programs: FakePrograms) -> None:
    programs.cgroup("/rt", cpus="3", partition="isolated")


def _slice(programs: FakePrograms) -> None:
    programs.cgroup("/a.slice", cpus="3")


def _nested(programs: FakePrograms) -> None:
    programs.cgroup("/a.slice", cpus="0,3")
    programs.cgroup("/a.slice/b", cpus="2-3")


def _unit(programs: FakePrograms) -> None:
    programs.unit("mysql.service", "[Service]\nCPUAffinity=3\n")


def _forgotten(programs: FakePrograms) -> None:
    programs.cgroup("/system.slice/x.service")
    programs.task(10, "1", cgroup="/system.slice/x.service")


@pytest.mark.parametrize(
    ("make", "kernel", "code"),
    [
        (_pinned, NEW, "pinned-threads"),
        (_two, NEW, "pinned-threads"),
        (_root_partition, NEW, "partition-emptied"),
        (_isolated_partition, OLD, "partition-emptied"),
        (_slice, NEW, "cpuset-falls-back"),
        (_nested, NEW, "cpuset-falls-back"),
        (_unit, NEW, "unit-affinity"),
        (_forgotten, OLD, "masks-forgotten"),
    ],
)
def test_with_refuse_nothing_is_written_and_no_device_del_is_sent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[FakePrograms], None], kernel: str, code: str
) -> None:
    monkeypatch.setenv("FAKE_KERNEL", kernel)
    with FakeVm(folder, "--smp", "4") as vm:
        make(FakePrograms(folder))
        for words in (("unplug", "--slot", "3"), ("offline", "3")):
            ended = run(vm, *words, "--workload", "refuse")
            assert (ended.status, ended.outcome, ended.json["reason"]["code"]) == (3, "refused", code), ended.stdout
            assert "--workload warn" in ended.json["reason"]["hint"]
            assert code in _notes(ended.json)
        assert (_dels(vm), _offline_writes(vm)) == ([], [])
        stands(vm, {0, 1, 2, 3})
        assert code in _notes(done(vm, {0, 1, 2}, "unplug", "--slot", "3", "--workload", "warn").json)


def test_on_a_kernel_that_forgets_masks_a_plug_is_refused_too_or_tells_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KERNEL", OLD)
    with FakeVm(folder, "--smp", "2") as vm:
        programs = FakePrograms(folder, forgets=True)
        _forgotten(programs)
        assert run(vm, "plug", "--workload", "refuse").json["reason"]["code"] == "masks-forgotten"
        assert vm.steer.commands("device_add") == []
        assert "masks-forgotten" in _notes(run(vm, "plan", "plug").json)
        assert "affinity-broken" in _notes(done(vm, {0, 1, 2}, "plug").json)


def test_with_ignore_nobody_looks_and_nothing_is_told(folder: Path) -> None:
    with FakeVm(folder, "--smp", "4") as vm:
        FakePrograms(folder).task(10, "3")
        assert done(vm, {0, 1, 2}, "unplug", "--workload", "ignore").json["notes"] == []


def test_a_vms_file_says_what_is_done_and_the_command_overrides_it(folder: Path) -> None:
    with FakeVm(folder, "--smp", "4") as vm:
        FakePrograms(folder).task(10, "3")
        (folder / "vcpuctl/vms.d").mkdir(parents=True)
        (folder / "vcpuctl/vms.d/web.toml").write_text(f'qmp = "{vm.qmp}"\nworkload = "refuse"\n')
        environment = {**os.environ, "XDG_CONFIG_HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}

        def command(*words: str) -> dict[str, Any]:
            program = [sys.executable, "-m", "vcpu_host.cli.main", "--vm", "web", "-o", "json", *words]
            ended = subprocess.run(program, env=environment, capture_output=True, check=False)
            found: dict[str, Any] = json.loads(ended.stdout)
            return found

        assert command("unplug", "--slot", "3")["outcome"] == "refused"
        blind = command("unplug", "--slot", "3", "--without-agent")
        assert (blind["outcome"], blind["reason"]["code"]) == ("refused", "workload-unseen")
        assert "--workload ignore" in blind["reason"]["hint"]
        assert _dels(vm) == []
        assert command("unplug", "--slot", "3", "--workload", "warn")["outcome"] == "done"


def test_a_plug_tells_what_keeps_the_guest_from_using_its_cpus(folder: Path) -> None:
    with FakeVm(folder) as vm:
        programs = FakePrograms(folder)
        network(folder, "eth0", 1, 8)
        programs.cgroup("/system.slice/x.service", quota="200000 100000")
        (folder / "sys/devices/system/cpu/isolated").write_text("1-3\n")
        before = _notes(run(vm, "plan", "plug", "3").json)
        assert set(before) == {"net-queues", "cpu-quota", "isolated-cpus"}
        notes = _notes(done(vm, {0, 1, 2, 3}, "plug", "3").json)
        assert set(notes) == set(before)
        assert notes["net-queues"]["what"] == "eth0 uses 1 of 8 queue pairs, with 4 CPUs"
        assert "3 of the 3 new CPUs" in notes["isolated-cpus"]["what"]


def test_doctor_tells_what_waits_for_cpus_and_what_is_not_used_each_with_its_fix(folder: Path) -> None:
    with FakeVm(folder, "--smp", "4") as vm:
        programs = FakePrograms(folder)
        network(folder, "eth0", 1, 8)
        programs.unit("mysql.service", "[Service]\nCPUAffinity=9\n")
        rt = programs.cgroup("/rt", cpus="2-3", partition="isolated")
        (programs.cgroupfs / "cpuset.cpus.effective").write_text("0-1,3\n")
        (folder / "sys/kernel").mkdir(exist_ok=True)
        found = {each["code"]: each for each in run(vm, "doctor").json["findings"]}
        assert rt.exists()
        assert found["unit-affinity"]["text"].startswith("mysql.service cannot be started: CPUAffinity=9")
        assert found["net-queues"]["text"] == "eth0 uses 1 of 8 queue pairs, with 4 CPUs"
        assert "shares CPU 3" in found["partition-overlap"]["text"]
        assert "2-3" in found["isolated-cpus"]["text"]
        assert all(found[code]["fix"] for code in ("unit-affinity", "net-queues", "partition-overlap", "isolated-cpus"))


# --- agents that cannot look, or lie ----------------------------------------------------------------------------------


class _Old(Script):
    """An agent from before there was such a look."""

    def hello(self, request: pb.HelloRequest) -> Answer:
        answer = super().hello(request)
        assert isinstance(answer, pb.HelloResponse)
        answer.capabilities.remove("workload")
        return answer

    def programs(self, request: pb.WorkloadRequest) -> Answer:
        raise AssertionError("it was asked for what it does not have")


class _Says(Script):
    """An agent that says this of the guest's programs, whatever is asked."""

    said: Answer = pb.Workload()

    def programs(self, request: pb.WorkloadRequest) -> Answer:
        if isinstance(self.said, bytes):
            return self.said
        return pb.WorkloadResponse(request_id=request.request_id, workload=self.said)


def _hostile(folder: Path, said: Answer, *, control: bool) -> _Says:
    script = _Says(folder, control=control)
    script.said = said
    return script


def test_an_older_agent_is_told_as_such_and_refused_for_if_programs_are_to_be_spared(folder: Path) -> None:
    with FakeVm(folder, "--smp", "3", agent=False) as vm, Hostile(vm, _Old(folder)):
        ended = run(vm, "unplug", "--slot", "2", "--workload", "refuse")
        assert (ended.status, ended.json["reason"]["code"]) == (3, "workload-unseen")
        assert _dels(vm) == []
        warned = done(vm, {0, 1}, "unplug", "--slot", "2").json
        (note,) = warned["notes"]
        assert (note["code"], note["fix"]) == ("workload-unseen", "update vcpu-guest in the guest")
        assert done(vm, {0}, "unplug", "--workload", "ignore").json["notes"] == []


_PIN = pb.Pinned(cpus="1", threads=pb.Threads(count=1, some=[pb.Thread(pid=1, comm="\x1b[2J\u202ex\n", unit="<b>")]))


#: An agent is asked by messages on the one stream, or by a call if it is older.
as_messages_and_as_calls = pytest.mark.parametrize("control", [True, False], ids=["messages", "calls"])


@as_messages_and_as_calls
@pytest.mark.parametrize(
    "said",
    [
        pb.Workload(
            online="0-65535", pinned=[pb.Pinned(cpus="0-65535", threads=pb.Threads(count=4_000_000_000))] * 1024
        ),
        pb.Workload(online="0-2", pinned=[_PIN] * 1024),
        pb.Workload(online="0-2", pinned=[_PIN] * 1025),
        pb.Workload(online="0-2", unseen=["\x9b31m" * 100] * 1024),
        pb.Workload(online="lies"),
        b"\xff\xff\xff",
        b"",
    ],
)
def test_whatever_the_guest_says_of_its_programs_no_other_slot_goes_and_nothing_steers_a_terminal(
    folder: Path, said: Answer, control: bool
) -> None:
    with FakeVm(folder, "--smp", "3", agent=False) as vm, Hostile(vm, _hostile(folder, said, control=control)):
        shown = run_hostile(vm, "unplug", "--slot", "2", timeout=30.0)
        shown.clean()
        assert shown.peak < MOST_MEMORY
        assert len(shown.json.get("notes", ())) <= 64
        assert len(shown.stdout) < 400_000
        table = run_hostile(vm, "-o", "table", "plan", "unplug")
        for text in (table.stdout.decode(), table.stderr.decode()):
            assert not any(ord(c) < 32 and c != "\n" for c in text)


@as_messages_and_as_calls
def test_a_million_pins_are_cut_off_before_they_take_memory(folder: Path, control: bool) -> None:
    pin = pb.Workload(pinned=[pb.Pinned(cpus="1")]).SerializeToString()
    flood = pb.WorkloadResponse(request_id="x").SerializeToString() + _field(2, pin * 1_000_000)
    if control:
        flood = _field(1, _field(4, flood))
    with FakeVm(folder, "--smp", "3", agent=False) as vm, Hostile(vm, _hostile(folder, flood, control=control)):
        ended = run_hostile(vm, "unplug", "--slot", "2", "--workload", "refuse", timeout=30.0)
        assert ended.peak < MOST_MEMORY
        assert ended.status in (3, 5), ended.stdout
        assert _dels(vm) == []
        stands(vm, {0, 1, 2})


def _field(number: int, data: bytes) -> bytes:
    size, left = bytearray(), len(data)
    while left > 0x7F:
        size.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes((number << 3 | 2, *size, left)) + data
