# SPDX-License-Identifier: Apache-2.0
"""Ansible's modules with the real vcpuctl: what a task tells is true for each VM, and what Ansible makes of it."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit import documents
from kit.component.ansible import module, play, program, saying
from kit.component.cli import stands
from kit.fakes.fleet import FakeFleet, fake_fleet
from kit.fakes.sick import dead, loses

SIX = ("down", "gone", "lost", "over", "same", "stays")


@contextmanager
def fleet_of(*names: str) -> Iterator[FakeFleet]:
    """VMs of one vCPU each, of 4 at most."""
    with (
        tempfile.TemporaryDirectory(prefix="vb", dir="/tmp") as folder,
        fake_fleet(Path(folder), names, "--maxcpus", "4") as fleet,
    ):
        yield fleet


def scale(fleet: FakeFleet, vms: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return module("vcpu_scale", fleet.environment, fleet.folder, vms=vms, **options)


@contextmanager
def six() -> Iterator[tuple[FakeFleet, dict[str, int]]]:
    """Six VMs, and numbers of vCPUs with which each of them ends in another way."""
    with fleet_of(*SIX) as fleet, ExitStack() as ends:
        before = scale(fleet, {"down": 2, "stays": 3})
        assert before["outcomes"] == {"done": ["down", "stays"]}, before
        fleet.vms["stays"].steer.call("x-fake-kernel-refuse", slot=1, errno=errno.EBUSY, online=False)
        ends.enter_context(loses(fleet.vms["lost"]))
        ends.enter_context(dead(fleet.vms["gone"]))
        yield fleet, {"down": 1, "gone": 2, "lost": 2, "over": 99, "same": 1, "stays": 1}


# --- vcpu_scale -------------------------------------------------------------------------------------------------------


@pytest.mark.crowd
def test_one_task_tells_for_each_of_six_vms_how_it_ended_and_why() -> None:
    with six() as (fleet, goals):
        ended = scale(fleet, goals, timeout="40s")
        assert ended["failed"] is True
        assert ended["changed"] is True
        assert ended["exit_status"] == 4, "the worst"
        assert ended["outcomes"] == {
            "done": ["down", "same"],
            "partial": ["stays"],
            "refused": ["over"],
            "unknown": ["lost"],
            "unreachable": ["gone"],
        }
        vms = ended["vms"]
        assert {name: vm["changed"] for name, vm in vms.items()} == {
            **dict.fromkeys(("down", "lost", "stays"), True),
            **dict.fromkeys(("gone", "over", "same"), False),
        }
        (slot,) = vms["down"]["slots"]
        assert set(slot["phases"]) == {"offline", "device_del"}
        (refused,) = [reason for reason in vms["stays"]["reasons"] if reason["slot"] == 1]
        assert (refused["who"], refused["errno"]) == ("guest", "EBUSY")
        assert {reason["code"] for reason in vms["over"]["reasons"]} == {"over-max"}
        assert {reason["code"] for reason in vms["gone"]["reasons"]} == {"qemu-gone"}
        assert vms["lost"]["reasons"]
        for name in ("gone", "lost", "over", "stays"):
            assert f"{name}: {vms[name]['outcome']}" in ended["msg"]
        stands(fleet.vms["down"], {0})
        stands(fleet.vms["stays"], {0, 1})


def test_a_second_task_changes_nothing_and_sends_nothing() -> None:
    with fleet_of("web1", "web2") as fleet:
        first = scale(fleet, {"web1": 3, "web2": {"vcpus": 2}})
        assert first["changed"] is True
        sent = [len(vm.steer.commands("device_add")) for vm in fleet.vms.values()]
        for vms in ({"web1": 3, "web2": 2}, {"web1": "3", "web2": {"vcpus": "2"}}):  # as templates make numbers
            again = scale(fleet, vms, diff=True)
            assert (again["changed"], again["outcomes"]) == (False, {"done": ["web1", "web2"]})
            assert (again["diff"]["before"], again["diff"]["after"]) == ("", "")
        assert [len(vm.steer.commands("device_add")) for vm in fleet.vms.values()] == sent == [2, 1]


def test_check_mode_does_nothing_and_says_what_the_task_then_does() -> None:
    with fleet_of("web1", "web2", "web3") as fleet:
        scale(fleet, {"web2": 3})
        goals = {"web1": 3, "web2": 1, "web3": 1}
        planned = scale(fleet, goals, check=True, diff=True)
        assert planned["changed"] is True
        assert planned["outcomes"] == {"planned": ["web1", "web2", "web3"]}
        assert [step["step"] for step in planned["vms"]["web2"]["steps"]] == ["unplug", "unplug"]
        assert planned["diff"]["before"] == "web2: slot 1 (vcpu-1)\nweb2: slot 2 (vcpu-2)\n"
        assert planned["diff"]["after"] == "web1: slot 1 (vcpu-1)\nweb1: slot 2 (vcpu-2)\n"
        stands(fleet.vms["web1"], {0})
        stands(fleet.vms["web2"], {0, 1, 2})
        done = scale(fleet, goals, diff=True)
        assert done["diff"] == planned["diff"]
        assert {name: vm["changed"] for name, vm in done["vms"].items()} == {
            name: vm["changed"] for name, vm in planned["vms"].items()
        }
        assert scale(fleet, goals, check=True)["changed"] is False


def test_check_mode_fails_for_a_vm_that_would_be_refused() -> None:
    with fleet_of("web1", "web2") as fleet:
        planned = scale(fleet, {"web1": 2, "web2": 99}, check=True)
        assert (planned["failed"], planned["outcomes"]) == (True, {"planned": ["web1"], "refused": ["web2"]})
        assert scale(fleet, {"web1": 2, "web2": 99}, check=True, fail_on=["failed"]).get("failed") is None
        stands(fleet.vms["web1"], {0})


def test_which_outcomes_fail_is_chosen_and_changes_no_result() -> None:
    with fleet_of("web1", "web2") as fleet:
        lax = scale(fleet, {"web1": 2, "web2": 99}, fail_on=["unknown", "failed"])
        strict = scale(fleet, {"web1": 2, "web2": 99}, fail_on=["refused"])
        assert (lax.get("failed"), strict["failed"]) == (None, True)
        assert lax["outcomes"] == strict["outcomes"] == {"done": ["web1"], "refused": ["web2"]}
        assert (lax["changed"], strict["changed"]) == (True, False)


@pytest.mark.parametrize(
    ("vms", "code"),
    [
        ({"web1": 0}, "bad-goals"),
        ({"web1": 2.5}, "bad-goals"),
        ({"web1": True}, "bad-goals"),
        ({"web1": "many"}, "bad-goals"),
        ({"web1": "²"}, "bad-goals"),
        ({"web1": "9" * 5000}, "bad-goals"),
        ({"web1": {}}, "bad-goals"),
        ({"web1": {"vcpus": 2, "color": "red"}}, "bad-goals"),
        ({"web1": 2, "nobody": 2}, "no-such-vm"),
    ],
)
def test_what_vcpuctl_refuses_as_a_whole_fails_whatever_was_chosen_and_nothing_is_done(
    vms: dict[str, Any], code: str
) -> None:
    with fleet_of("web1") as fleet:
        ended = scale(fleet, vms, fail_on=[])
        assert (ended["failed"], ended["exit_status"], ended["error"]["code"]) == (True, 2, code)
        assert ended["msg"].startswith(ended["error"]["text"])
        stands(fleet.vms["web1"], {0})


def test_any_number_of_vms_is_one_start_of_vcpuctl_and_no_vm_is_none(tmp_path: Path) -> None:
    with fleet_of(*(f"web{number}" for number in range(12))) as fleet:
        count = f"echo started >>{tmp_path}/starts\nexec {Path(sys.executable).parent}/vcpuctl"
        counted = program(tmp_path, f'{count} "$@"')
        assert scale(fleet, {}, executable=counted) | {"invocation": 0} == {
            "changed": False,
            "vms": {},
            "outcomes": {},
            "exit_status": 0,
            "elapsed": 0.0,
            "invocation": 0,
        }
        ended = scale(fleet, dict.fromkeys(fleet.vms, 2), executable=counted)
        assert len(ended["outcomes"]["done"]) == 12
        assert (tmp_path / "starts").read_text().split() == ["started"]


def test_domains_are_given_to_vcpuctl_with_the_uri_of_their_libvirt(tmp_path: Path) -> None:
    member = {"vcpus": 4, "exit_status": 5, "document": None}
    error = {"code": "libvirt-gone", "who": "libvirt", "text": "no", "hint": "", "errno": ""}
    document = {
        "schema_version": 1,
        "command": "apply",
        "dry_run": False,
        "exit_status": 5,
        "elapsed": 0.1,
        "vms": [{"vm": name, **member, "error": error} for name in ("web1", "db1", "far")],
    }
    documents.check(document)
    vms = {
        "web1": 4,
        "db1": {"vcpus": "4", "domain": "6695eb01-f6a4-8304-79aa-97f2502e193f", "monitor": False},
        "far": {"vcpus": 4, "libvirt": "qemu+ssh://root@host2/system", "domain": "db2"},
    }
    asked: dict[str, Any] = {
        "executable": saying(tmp_path, document, 5),
        "libvirt": "qemu:///system",
        "timeout": "2m",
        "parallel": 3,
    }
    ended = module("vcpu_scale", os.environ, tmp_path, vms=vms, **asked)
    assert ended["outcomes"] == {"unreachable": ["db1", "far", "web1"]}
    assert json.loads((tmp_path / "input").read_text())["vms"] == {
        "web1": {"vcpus": 4, "libvirt": "qemu:///system", "domain": "web1"},
        "db1": {**vms["db1"], "vcpus": 4, "libvirt": "qemu:///system"},  # type: ignore[dict-item]
        "far": vms["far"],
    }
    assert (tmp_path / "words").read_text() == "-o json apply --timeout=2m --parallel=3 -\n"


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("", 0, "no JSON document"),
        ("Traceback (most recent call last):", 1, "no JSON document"),
        ({"schema_version": 2, "vms": []}, 0, "schema_version 2"),
        ({"schema_version": 1, "vms": [], "exit_status": 0, "elapsed": 0.1}, 3, "says exit status 0"),
        ({"schema_version": 1, "vms": [], "exit_status": 0, "elapsed": 0.1}, 0, "asked for ['web1']"),
    ],
)
def test_an_answer_that_is_not_vcpuctls_fails_whatever_was_chosen(
    tmp_path: Path, said: Any, status: int, words: str
) -> None:
    executable = saying(tmp_path, said, status)
    ended = module("vcpu_scale", os.environ, tmp_path, vms={"web1": 2}, executable=executable, fail_on=[])
    assert (ended["failed"], ended["exit_status"]) == (True, status)
    assert words in ended["msg"]


def test_a_host_without_vcpuctl_is_told_how_to_get_it(tmp_path: Path) -> None:
    ended = module("vcpu_scale", os.environ, tmp_path, vms={"web1": 2}, executable="/nowhere/vcpuctl")
    assert ended["failed"] is True
    assert "vcpuctl.vcpu.vcpu_host" in ended["msg"]


# --- vcpu_info --------------------------------------------------------------------------------------------------------


def info(fleet: FakeFleet, **options: Any) -> dict[str, Any]:
    ended = module("vcpu_info", fleet.environment, fleet.folder, **options)
    assert ended["changed"] is False
    return ended


def test_a_look_tells_of_each_vm_and_one_that_is_gone_does_not_fail_the_task() -> None:
    with fleet_of("db1", "web1", "web2") as fleet:
        scale(fleet, {"web1": 3})
        with dead(fleet.vms["db1"]):
            vms = info(fleet)["vms"]
            alone = info(fleet, vms=["db1"])["vms"]
        assert {name: vm["online_vcpus"] for name, vm in vms.items()} == {"db1": None, "web1": 3, "web2": 1}
        assert (vms["db1"]["outcome"], vms["db1"]["error"]["code"]) == ("unreachable", "qemu-gone")
        assert alone == {"db1": vms["db1"]}
        assert vms["web1"]["agent"]["connected"] is True
        assert [slot["state"] for slot in vms["web1"]["slots"]] == ["online", "online", "online", "empty"]
        assert set(info(fleet, vms=["web*"])["vms"]) == {"web1", "web2"}
        assert info(fleet, vms=["web1"])["vms"]["web1"]["online_vcpus"] == 3
        assert {finding["level"] for finding in info(fleet, vms=["web1"], doctor=True)["vms"]["web1"]["findings"]}


def test_a_host_without_vms_has_none_and_a_name_that_is_none_is_an_error(tmp_path: Path) -> None:
    nobody = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert module("vcpu_info", nobody, tmp_path)["vms"] == {}
    for names in (["nobody"], ["no*"], ["nobody", "else"]):
        wrong = module("vcpu_info", nobody, tmp_path, vms=names)
        assert (wrong["failed"], wrong["error"]["code"]) == (True, "no-such-vm")


def test_the_domains_of_a_libvirt_are_listed_without_a_look_at_any_qemu(tmp_path: Path) -> None:
    document = {"schema_version": 1, "connect": "qemu:///system", "domains": []}
    documents.check(document)
    executable = saying(tmp_path, document)
    assert module("vcpu_info", os.environ, tmp_path, libvirt="qemu:///system", executable=executable)["domains"] == []
    assert (tmp_path / "words").read_text() == "-o json vms --connect=qemu:///system\n"


def test_no_names_are_no_vms_and_nothing_is_asked(tmp_path: Path) -> None:
    """A list that a template has left empty must not stand for all VMs of the host."""
    executable = saying(tmp_path, {"schema_version": 1, "vms": []})
    for options in ({}, {"libvirt": "qemu:///system"}, {"doctor": True}):
        assert module("vcpu_info", os.environ, tmp_path, vms=[], executable=executable, **options)["vms"] == {}
    assert not (tmp_path / "words").exists()


def test_a_name_that_begins_with_a_dash_is_a_name(tmp_path: Path) -> None:
    error = {"code": "libvirt-gone", "who": "libvirt", "text": "no", "hint": "", "errno": ""}
    executable = saying(tmp_path, {"schema_version": 1, "error": error, "exit_status": 5}, 5)
    asked: dict[str, Any] = {"executable": executable, "libvirt": "qemu:///system"}
    ended = module("vcpu_info", os.environ, tmp_path, vms=["-foo"], **asked)
    assert ended["vms"]["-foo"]["outcome"] == "unreachable"
    module("vcpu_channel", os.environ, tmp_path, domains=["-foo"], check=True, **asked)
    assert (tmp_path / "words").read_text().splitlines() == [
        f"-o json --connect=qemu:///system --domain=-foo {command}" for command in ("list", "channel")
    ]
    wrong = module("vcpu_info", os.environ, tmp_path, vms=["-foo"])  # the real one
    assert (wrong["failed"], wrong["error"]["code"]) == (True, "bad-vm-name")


def test_a_vm_that_comes_or_goes_between_two_looks_does_not_end_the_module(tmp_path: Path) -> None:
    reason = {"code": "qemu-gone", "who": "qemu", "text": "no", "hint": "", "errno": ""}
    part = {"vcpus": None, "exit_status": 5, "document": None, "error": reason}
    head = {"schema_version": 1, "dry_run": False, "exit_status": 5, "elapsed": 0.1}
    lines = []
    for command, name in (("list", "goes"), ("doctor", "comes")):
        document = {**head, "command": command, "vms": [{"vm": name, **part}]}
        documents.check(document)
        lines.append(f"*{command}) echo '{json.dumps(document)}';;")
    executable = program(tmp_path, f'case "$*" in {" ".join(lines)} esac; exit 5')
    vms = module("vcpu_info", os.environ, tmp_path, doctor=True, executable=executable)["vms"]
    assert {name: vm["findings"] for name, vm in vms.items()} == {"goes": []}


def test_words_that_are_wrong_for_a_domain_fail_the_task_as_those_for_a_file_do(tmp_path: Path) -> None:
    ended = module("vcpu_info", os.environ, tmp_path, vms=["web1"], libvirt="qemu:///system", timeout="soon")
    assert (ended["failed"], ended["exit_status"], ended["error"]["code"]) == (True, 2, "bad-usage")


# --- what Ansible makes of it -----------------------------------------------------------------------------------------


def test_ansible_takes_a_task_for_failed_as_the_module_says_and_not_by_an_exit_status() -> None:
    with fleet_of("web1", "web2") as fleet:
        task = {"vcpuctl.vcpu.vcpu_scale": {"vms": {"web1": 2, "web2": 99}, "fail_on": "{{ fail_on }}"}}
        tasks: list[dict[str, Any]] = [
            {"name": "lax", **task, "vars": {"fail_on": ["failed"]}, "register": "scaled"},
            {"name": "why", "debug": {"msg": "{{ scaled.vms.web2.reasons[0].code }}"}},
            {"name": "look", "vcpuctl.vcpu.vcpu_info": {"vms": ["web1"]}, "register": "found"},
            {"name": "sum", "assert": {"that": ["found.vms.web1.online_vcpus == 2", "scaled is changed"]}},
            {"name": "strict", **task, "vars": {"fail_on": ["refused"]}},
        ]
        book = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
        interpreter = f"ansible_python_interpreter={sys.executable}"
        played = play(book, fleet.environment, fleet.folder, "--inventory", "localhost,", "--extra-vars", interpreter)
        assert played.status == 2, played.words
        ends = {name: played.task(name)["ended"] for name in ("lax", "why", "look", "sum", "strict")}
        assert ends == {**dict.fromkeys(("lax", "why", "look", "sum"), "ok"), "strict": "failed"}, played.words
        assert played.task("lax")["exit_status"] == played.task("strict")["exit_status"] == 3
        assert played.task("why")["msg"] == "over-max"
        assert played.stats["localhost"]["changed"] == 1
