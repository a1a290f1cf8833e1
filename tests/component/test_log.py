# SPDX-License-Identifier: Apache-2.0
"""What operations leave in the system's journal, and ``vcpuctl log``: with systemd's own journald and journalctl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import documents
from kit.component.cli import Vcpuctl, run
from kit.component.journald import RealJournal
from kit.component.serving import Serving
from kit.fakes.qemu import FakeVm
from vcpu_host.core.log_entry import MESSAGE_ID
from vcpu_proto.host.v1 import host_pb2 as pb

_OURS = f"MESSAGE_ID={MESSAGE_ID}"
#: Sends one entry as any program may, given on its standard input as JSON: a list of names and values.
_SEND = "import json, sys; from vcpu_host.local.journald import send; print(send(json.loads(sys.argv[1])))"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vl", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def journal() -> Iterator[RealJournal]:
    with RealJournal() as started:
        yield started


def _send(journal: RealJournal, *fields: tuple[str, str]) -> str:
    sent = journal.run(sys.executable, "-c", _SEND, json.dumps(fields))
    assert sent.returncode == 0, sent.stderr
    return sent.stdout.strip()


def _log(journal: RealJournal, *words: str) -> dict[str, Any]:
    said = journal.run(sys.executable, "-m", "vcpu_host.cli.main", "-o", "json", "log", *words)
    assert said.returncode == 0, said.stdout + said.stderr
    documents.check_output(said.stdout)
    document: dict[str, Any] = json.loads(said.stdout)
    return document


def test_each_operation_leaves_one_entry_that_says_who_changed_what_from_what_to_what(
    folder: Path, journal: RealJournal
) -> None:
    with FakeVm(folder, "--maxcpus", "4") as vm:
        assert run(vm, "plug", "-n", "2", inside=journal.inside).status == 0
        assert run(vm, "scale", "1", inside=journal.inside).status == 0
        assert run(vm, "list", inside=journal.inside).status == 0
        assert run(vm, "plug", "2", "--dry-run", inside=journal.inside).status == 0
        assert run(vm, "plug", "9", inside=journal.inside).status == 3
        plugged, scaled, refused = journal.entries(_OURS)
        assert plugged["VCPUCTL_OPERATION"], plugged["VCPUCTL_OUTCOME"] == ("plug", "done")
        assert (plugged["VCPUCTL_PLUGGED_BEFORE"], plugged["VCPUCTL_PLUGGED_AFTER"]) == ("1", "3")
        assert (plugged["VCPUCTL_ONLINE_BEFORE"], plugged["VCPUCTL_ONLINE_AFTER"]) == ("1", "3")
        assert (scaled["VCPUCTL_ONLINE_BEFORE"], scaled["VCPUCTL_ONLINE_AFTER"]) == ("3", "1")
        assert (scaled["VCPUCTL_REQUESTED"], scaled["VCPUCTL_SLOTS"], scaled["PRIORITY"]) == ("1", "1-2", "6")
        assert plugged["VCPUCTL_SOCKET"] == os.path.realpath(vm.qmp)
        assert int(plugged["VCPUCTL_QEMU_PID"]) == vm.process.pid
        assert plugged["VCPUCTL_COMMAND"].startswith(f"vcpuctl --qmp {vm.qmp}")
        assert plugged["VCPUCTL_UID"] == plugged["_UID"]
        assert set(json.loads(plugged["VCPUCTL_PHASES"])) == {"device_add", "arrival", "online"}
        assert (refused["VCPUCTL_OUTCOME"], refused["VCPUCTL_REASON_CODE"]) == ("refused", "not-enough")
        assert refused["PRIORITY"] == "5"
        assert "only 3 are left" in refused["MESSAGE"], (
            "the reason stands in the message, for who reads journalctl alone"
        )


def test_an_operation_that_ends_before_it_began_leaves_its_refusal_and_a_wrong_word_nothing(
    folder: Path, journal: RealJournal
) -> None:
    with FakeVm(folder, "--maxcpus", "4", agent=False) as vm:
        assert run(vm, "plug", "--timeout", "500ms", inside=journal.inside).status == 5
        assert run(vm, "unplug", "--slot", "99", inside=journal.inside).status == 2
        (entry,) = journal.entries(_OURS)
        assert (entry["VCPUCTL_OUTCOME"], entry["VCPUCTL_REASON_CODE"]) == ("refused", "agent-absent")
        assert "VCPUCTL_PLUGGED_AFTER" not in entry


def test_what_the_service_does_for_others_leaves_one_entry_each_with_who_asked(
    folder: Path, journal: RealJournal
) -> None:
    with (
        FakeVm(folder, "--maxcpus", "4") as vm,
        Serving({"web1": vm}, inside=journal.inside) as service,
        service.host() as host,
    ):
        service.holds("web1")
        assert run(vm, "plug", inside=journal.inside).status == 0
        order = pb.Order(operation=pb.Order.OPERATION_SCALE, count=1)
        *_, last = host.Apply(pb.ApplyRequest(vm="web1", order=order))
        assert last.result["outcome"] == "done"
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "plug", inside=journal.inside) as first:
            vm.steer.wait(rule)
            assert run(vm, "plug", inside=journal.inside).outcome == "vm-busy"
            vm.steer.release(rule)
            assert first.ends().outcome == "done"
        entries = journal.entries(_OURS)
        told = [(entry["VCPUCTL_OPERATION"], entry["VCPUCTL_OUTCOME"]) for entry in entries]
        assert told == [("plug", "done"), ("scale", "done"), ("plug", "refused"), ("plug", "done")]
        for entry in (entries[0], entries[1], entries[3]):
            assert entry["VCPUCTL_COMMAND"] == "vcpuctl serve"
            assert (entry["VCPUCTL_VM"], int(entry["VCPUCTL_QEMU_PID"])) == ("web1", vm.process.pid)
        assert entries[1]["VCPUCTL_FOR_UID"] == entries[1]["VCPUCTL_UID"] == "0", "it is root there who asked, too"
        assert (entries[0]["VCPUCTL_PLUGGED_BEFORE"], entries[0]["VCPUCTL_PLUGGED_AFTER"]) == ("1", "2")
        assert entries[2]["VCPUCTL_REASON_CODE"] == "vm-busy"


def test_log_shows_what_was_done_and_takes_a_vm_by_its_name_or_its_socket(folder: Path, journal: RealJournal) -> None:
    config = folder / "config"
    (config / "vcpuctl/vms.d").mkdir(parents=True)
    (config / "vcpuctl/vms.d/web1.toml").write_text(f'qmp = "{folder}/qmp"\n')
    with FakeVm(folder, "--maxcpus", "4") as vm:
        run(vm, "plug", inside=journal.inside)
        run(vm, "unplug", inside=journal.inside)
        whole = _log(journal)
        assert [entry["operation"] for entry in whole["entries"]] == ["plug", "unplug"]
        assert (whole["skipped"], whole["complete"]) == (0, True)
        first = whole["entries"][0]
        assert (first["before"], first["after"]) == (
            {"plugged_vcpus": 1, "online_vcpus": 1},
            {"plugged_vcpus": 2, "online_vcpus": 2},
        )
        assert first["vm"]["qemu_pid"] == vm.process.pid
        assert first["caller"]["uid"] == 0, "it is root there, and journald says so"
        assert len(_log(journal, "-n", "1")["entries"]) == 1
        assert len(_log(journal, "--qmp", str(vm.qmp), "-n", "all")["entries"]) == 2
        assert _log(journal, "--qmp", "/nobody")["entries"] == []
        named = journal.run(
            *(sys.executable, "-m", "vcpu_host.cli.main", "--vm", "web1", "log"),
            environment={"XDG_CONFIG_HOME": str(config)},
        )
        assert named.returncode == 0, named.stderr
        assert [" done " in line for line in named.stdout.splitlines()] == [False, True, True]


def test_entries_of_other_writers_are_counted_and_their_words_do_no_harm(journal: RealJournal) -> None:
    ours = ("MESSAGE_ID", MESSAGE_ID)
    good = (
        *(ours, ("MESSAGE", "x"), ("VCPUCTL_OPERATION", "plug"), ("VCPUCTL_OUTCOME", "done")),
        *(("VCPUCTL_ELAPSED", "0.5"), ("VCPUCTL_UID", "4242"), ("VCPUCTL_USER", "admin")),
        ("VCPUCTL_VM", "web\x1b[2J\nroot"),
    )
    assert _send(journal, *good) == "written"
    assert _send(journal, ours, ("MESSAGE", "nothing else")) == "written"
    assert _send(journal, *(field for field in good if field[0] != "VCPUCTL_ELAPSED")) == "written"
    journal.entries(_OURS)
    found = _log(journal)
    assert found["skipped"] == 2
    (entry,) = found["entries"]
    assert entry["vm"]["name"] == r"web\x1b[2J\nroot"
    assert (entry["caller"]["uid"], entry["caller"]["user"]) == (0, ""), "who it was is the kernel's word"


def test_an_entry_that_no_datagram_can_hold_goes_into_a_file_and_arrives_whole(journal: RealJournal) -> None:
    large = "ä\n" * 400_000
    assert _send_file(journal, large) == "written"
    (entry,) = journal.entries("VCPUCTL_TEST=large")
    assert entry["VCPUCTL_LARGE"] == large


def _send_file(journal: RealJournal, large: str) -> str:
    program = (
        "import sys; from vcpu_host.local.journald import send; "
        "print(send([('MESSAGE', 'x'), ('VCPUCTL_TEST', 'large'), ('VCPUCTL_LARGE', sys.stdin.read())]))"
    )
    sent = subprocess.run(
        [*journal.inside, sys.executable, "-c", program], input=large, text=True, capture_output=True, check=True
    )
    return sent.stdout.strip()


def test_log_follows_what_comes_until_it_is_interrupted(folder: Path, journal: RealJournal) -> None:
    with FakeVm(folder, "--maxcpus", "4") as vm, Vcpuctl(vm, "log", "--follow", inside=journal.inside) as following:
        run(vm, "plug", inside=journal.inside)
        assert following.process.stdout is not None
        document = json.loads(following.process.stdout.readline())
        assert [entry["operation"] for entry in document["entries"]] == ["plug"]
        following.interrupt()
        assert following.ends().status == 0


def test_a_time_that_journalctl_does_not_understand_is_a_usage_error(journal: RealJournal) -> None:
    said = journal.run(sys.executable, "-m", "vcpu_host.cli.main", "-o", "json", "log", "--since", "the other day")
    assert said.returncode == 2
    assert json.loads(said.stdout)["error"]["code"] == "bad-usage"
    assert "the other day" in said.stderr


def test_without_a_journald_an_operation_is_the_same_and_log_is_empty(folder: Path, journal: RealJournal) -> None:
    with FakeVm(folder, "--maxcpus", "4") as vm:
        journal.run("rm", "/run/systemd/journal/socket")
        ended = run(vm, "-v", "plug", inside=journal.inside)
        assert (ended.status, ended.outcome) == (0, "done")
        assert "no journal" in ended.stderr
        assert _log(journal)["entries"] == []
        assert journal.entries(_OURS) == []
