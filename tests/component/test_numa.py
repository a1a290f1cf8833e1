# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl numa assign`` as a process, on a QEMU that waits in preconfig; and QEMUs that are too old for anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import done, run
from kit.fakes.qemu import FakeVm

_SOCKETS = ("--maxcpus", "8", "--sockets", "2", "--cores", "2", "--threads", "2")
_TWO_NODES = (*_SOCKETS, "--nodes", "2")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vn", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def waiting(folder: Path) -> Iterator[FakeVm]:
    with FakeVm(folder, *_TWO_NODES, "--preconfig", "on", agent=False) as vm:
        yield vm


def _map(folder: Path, text: str) -> tuple[str, str]:
    path = folder / "map.toml"
    path.write_text(text)
    return "--map", str(path)


def _nodes(vm: FakeVm) -> list[int | None]:
    slots: list[dict[str, Any]] = vm.steer.call("query-hotpluggable-cpus")
    return [slot["props"].get("node-id") for slot in reversed(slots)]


def _set(vm: FakeVm) -> list[Any]:
    """What was asked to be set of slots that there are."""
    told = [entry["arguments"] for entry in vm.steer.commands("set-numa-node")]
    return [arguments for arguments in told if max(value for value in arguments.values() if type(value) is int) < 128]


def test_every_slot_gets_the_node_of_the_map_and_the_vm_then_runs(folder: Path, waiting: FakeVm) -> None:
    ended = run(waiting, "numa", "assign", *_map(folder, "1 = ['socket-id=0']\n0 = ['socket-id=1']"))
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
    assert [slot["node"] for slot in ended.json["slots"]] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert _nodes(waiting) == [1, 1, 1, 1, 0, 0, 0, 0]
    assert waiting.steer.call("query-status")["status"] == "running"
    waiting.start_agent()
    listed = run(waiting, "list").json
    assert [slot["node"] for slot in listed["slots"]] == [1, 1, 1, 1, 0, 0, 0, 0]
    done(waiting, {0, 4}, "plug", "--node", "0")


@pytest.mark.parametrize(
    ("policy", "expected"), [("pack", [0, 0, 0, 0, 1, 1, 1, 1]), ("spread", [0, 0, 1, 1, 0, 0, 1, 1])]
)
def test_a_policy_lays_whole_cores_over_the_nodes_that_there_are(
    waiting: FakeVm, policy: str, expected: list[int]
) -> None:
    assert run(waiting, "numa", "assign", "--policy", policy).status == 0
    assert _nodes(waiting) == expected


def test_a_dry_run_shows_the_map_and_the_arguments_and_sets_nothing(waiting: FakeVm) -> None:
    ended = run(waiting, "numa", "assign", "--policy", "pack", "--dry-run")
    assert (ended.status, ended.json["dry_run"]) == (0, True)
    assert ended.json["arguments"][:2] == ["-numa", "cpu,node-id=0,socket-id=0,core-id=0,thread-id=0"]
    assert _set(waiting) == []
    assert waiting.steer.commands("x-exit-preconfig") == []


def test_a_bad_map_is_refused_before_anything_is_sent(folder: Path, waiting: FakeVm) -> None:
    for text, code in (
        ("0 = ['socket-id=0']\n1 = ['socket-id=1', 0]", "bad-map"),
        ("0 = ['socket-id=0']", "bad-map"),
        ("0 = ['socket-id=0']\n0 = ['socket-id=1']", "bad-map"),
        ("0 = " + "[" * 20000, "bad-map"),
        ("128 = ['socket-id=0', 'socket-id=1']", "bad-map"),
        ("0 = ['socket-id=0', 9]\n1 = ['socket-id=1']", "bad-slot"),
    ):
        ended = run(waiting, "numa", "assign", *_map(folder, text))
        assert (ended.status, ended.json["error"]["code"]) == (2, code), ended.stderr
    assert waiting.steer.commands("set-numa-node") == []
    assert waiting.steer.commands("x-exit-preconfig") == []
    assert _nodes(waiting) == [None] * 8


def test_an_unknown_node_is_told_by_qemu_and_nothing_is_set(folder: Path, waiting: FakeVm) -> None:
    ended = run(waiting, "numa", "assign", *_map(folder, "0 = ['socket-id=0']\n5 = ['socket-id=1']"))
    assert (ended.status, ended.json["reason"]["code"]) == (3, "no-such-node"), ended.stderr
    # the two nodes of the map are asked for, with a slot that there is not, and nothing else
    assert [told["arguments"]["node-id"] for told in waiting.steer.commands("set-numa-node")] == [0, 5]
    assert _set(waiting) == []
    assert waiting.steer.commands("x-exit-preconfig") == []
    assert _nodes(waiting) == [None] * 8


def test_a_machine_that_has_been_made_is_refused_with_the_arguments_for_its_next_start(folder: Path) -> None:
    with FakeVm(folder, *_TWO_NODES, agent=False) as vm:
        ended = run(vm, "numa", "assign", *_map(folder, "1 = ['socket-id=0']\n0 = ['socket-id=1']"))
        assert (ended.status, ended.json["reason"]["code"]) == (3, "machine-made")
        assert ended.json["arguments"][1] == "cpu,node-id=1,socket-id=0,core-id=0,thread-id=0"
        assert len(ended.json["arguments"]) == 16
        assert vm.steer.commands("set-numa-node") == []
        assert "-numa cpu,node-id=1" in _for_people(vm, folder)


def test_a_running_machine_without_nodes_is_told_that_and_no_arguments_are_promised(folder: Path) -> None:
    with FakeVm(folder, *_SOCKETS, agent=False) as vm:
        ended = run(vm, "numa", "assign", "--policy", "pack")
        assert (ended.status, ended.json["reason"]["code"]) == (3, "machine-made")
        assert ended.json["arguments"] == []
        assert "-numa node" in ended.json["reason"]["hint"]
        assert "these arguments" not in ended.json["reason"]["hint"]


def _for_people(vm: FakeVm, folder: Path) -> str:
    from kit.component.cli import Vcpuctl

    with Vcpuctl(vm, "-o", "table", "numa", "assign", *_map(folder, "1 = ['socket-id=0']\n0 = ['socket-id=1']")) as it:
        return it.ends().stdout


def test_a_qemu_without_nodes_is_refused(folder: Path) -> None:
    with FakeVm(folder, *_SOCKETS, "--preconfig", "on", agent=False) as vm:
        ended = run(vm, "numa", "assign", "--policy", "spread")
        assert (ended.status, ended.json["reason"]["code"]) == (3, "no-nodes")
        assert vm.steer.commands("x-exit-preconfig") == []


def test_an_assignment_that_stopped_half_way_is_taken_up_again(folder: Path, waiting: FakeVm) -> None:
    waiting.steer.call("set-numa-node", type="cpu", node_id=1, socket_id=0, core_id=0, thread_id=0)
    refused = run(waiting, "numa", "assign", "--policy", "pack")
    assert (refused.status, refused.json["reason"]["code"]) == (3, "node-set")
    ended = run(waiting, "numa", "assign", *_map(folder, "1 = ['socket-id=0']\n0 = ['socket-id=1']"))
    assert ended.status == 0, ended.stdout
    assert _nodes(waiting) == [1, 1, 1, 1, 0, 0, 0, 0]


def test_a_qemu_that_ends_when_it_makes_the_machine_is_told_as_that(waiting: FakeVm) -> None:
    waiting.steer.rule("before:x-exit-preconfig", "close")
    ended = run(waiting, "numa", "assign", "--policy", "pack")
    assert (ended.status, ended.outcome) == (5, "qemu-gone")
    assert "on leaving preconfig" in ended.stderr


def test_every_other_command_says_what_such_a_qemu_waits_for(waiting: FakeVm) -> None:
    for words in (("list",), ("scale", "2"), ("doctor",)):
        ended = run(waiting, *words)
        assert ended.status == (1 if words == ("doctor",) else 3), ended.stdout
        assert '"preconfig"' in ended.stdout
        assert "numa assign" in ended.stdout


# --- too old ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "code"), [("2.6.2", "legacy-cpu-add"), ("2.9.1", "qemu-too-old")])
def test_a_qemu_of_before_slots_is_told_from_one_that_cannot_plug(folder: Path, version: str, code: str) -> None:
    with FakeVm(folder, "--version", version, agent=False) as vm:
        assign = ("numa", "assign", "--policy", "pack")
        for words in (("list",), ("doctor",), ("plug",), ("export",), assign):
            ended = run(vm, *words)
            assert ended.status == (1 if words == ("doctor",) else 3), ended.stdout + ended.stderr
            assert f'"{code}"' in ended.stdout
            assert f"QEMU {version}" in ended.stdout
            assert "2.7" in ended.stdout
