# SPDX-License-Identifier: Apache-2.0
"""Many VMs by one command: each ends as it would alone, whatever the others do."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kit.component.cli import filled, stands, until
from kit.component.many import EndedForEach, ForMany, for_many
from kit.component.serving import Serving
from kit.fakes.fleet import FakeFleet, fake_fleet
from kit.fakes.qemu import FakeVm
from kit.fakes.sick import SICK, dead, refuses
from kit.fakes.terminal import run_on_terminal


@contextmanager
def fleet_of(*names: str, without_agent: tuple[str, ...] = ()) -> Iterator[FakeFleet]:
    """VMs of one vCPU each, of 8 at most."""
    with (
        tempfile.TemporaryDirectory(prefix="va", dir="/tmp") as folder,
        fake_fleet(Path(folder), names, "--maxcpus", "8", without_agent=without_agent) as fleet,
    ):
        yield fleet


# --- what it does -----------------------------------------------------------------------------------------------------


def test_every_vm_gets_its_number_and_a_second_time_changes_nothing() -> None:
    with fleet_of("web1", "web2", "db1") as fleet:
        goals = fleet.goals({"web2": 3, "db1": 1, "web1": 2})
        ended = for_many(fleet, "apply", str(goals))
        assert ended.status == 0, ended.stdout + ended.stderr
        assert [(vm["vm"], vm["vcpus"]) for vm in ended.json["vms"]] == [("web2", 3), ("db1", 1), ("web1", 2)]
        assert {name: ended.outcome_of(name) for name in ended.vms} == dict.fromkeys(fleet.vms, "done")
        for name, slots in (("web1", {0, 1}), ("web2", {0, 1, 2}), ("db1", {0})):
            stands(fleet.vms[name], slots)
        again = for_many(fleet, "apply", str(goals))
        assert [vm["document"]["slots"] for vm in again.json["vms"]] == [[], [], []]
        assert sum(len(vm.steer.commands("device_add")) for vm in fleet.vms.values()) == 3


def test_a_dry_run_says_what_would_be_done_for_each_and_does_nothing() -> None:
    with fleet_of("web1", "web2") as fleet:
        ended = for_many(fleet, "apply", "--dry-run", str(fleet.goals({"web1": 2, "web2": 99})))
        assert ended.json["dry_run"] is True
        assert [step["slot"] for step in ended.vms["web1"]["document"]["steps"]] == [1]
        assert (ended.status, ended.statuses) == (3, {"web1": 0, "web2": 3})
        for vm in fleet.vms.values():
            stands(vm, {0})


def test_a_dry_run_of_a_vm_without_an_agent_ends_as_its_operation_does() -> None:
    with fleet_of("web1", "web2", without_agent=("web2",)) as fleet:
        goals = str(fleet.goals({"web1": 2, "web2": 2}))
        planned = for_many(fleet, "apply", "--dry-run", goals)
        assert planned.statuses == {"web1": 0, "web2": 5}
        # What becomes of the other one in a second depends on the machine.
        assert for_many(fleet, "--timeout", "1", "apply", goals).statuses["web2"] == planned.statuses["web2"]


def test_the_file_may_be_json_on_standard_input() -> None:
    with fleet_of("web1") as fleet:
        ended = for_many(fleet, "apply", "-", stdin='{"schema_version": 1, "vms": {"web1": {"vcpus": 2}}}')
        assert ended.status == 0, ended.stdout
        stands(fleet.vms["web1"], {0, 1})


def test_every_command_for_slots_takes_names_and_patterns_and_all() -> None:
    with fleet_of("web1", "web2", "db1") as fleet:
        assert for_many(fleet, "--vm", "web*", "plug").statuses == {"web1": 0, "web2": 0}
        for name, slots in (("web1", {0, 1}), ("web2", {0, 1}), ("db1", {0})):
            stands(fleet.vms[name], slots)
        planned = for_many(fleet, "--vm", "db1", "--vm", "web1", "plan", "scale", "1")
        assert [len(planned.vms[name]["document"]["steps"]) for name in ("db1", "web1")] == [0, 1]
        assert for_many(fleet, "--vm", "web1", "--vm", "web2", "offline", "1").status == 0
        listed = for_many(fleet, "--all", "list")
        assert {name: vm["document"]["vm"]["online_vcpus"] for name, vm in listed.vms.items()} == dict.fromkeys(
            fleet.vms, 1
        )
        assert for_many(fleet, "--vm", "web?", "online", "1").status == 0
        assert for_many(fleet, "--vm", "w*", "unplug").status == 0
        assert for_many(fleet, "--all", "scale", "2").status == 0
        for vm in fleet.vms.values():
            stands(vm, {0, 1})
        checked = for_many(fleet, "--all", "doctor")
        assert all(vm["document"]["findings"] for vm in checked.vms.values())


def test_a_list_of_many_has_a_line_for_each_vm_with_its_reasons_below() -> None:
    with fleet_of("db1", "web1", "web2", without_agent=("web2",)) as fleet:
        assert for_many(fleet, "apply", str(fleet.goals({"web1": 3}))).status == 0
        with dead(fleet.vms["db1"]):
            ended = for_many(fleet, "--all", "list", output="table")
        assert ended.status == 5
        head, db1, web1, web2, *reasons = ended.stdout.splitlines()
        assert head.split() == ["VM", "POSSIBLE", "PLUGGED", "ONLINE", "AGENT", "PENDING"]
        assert db1.split() == ["db1", "-", "-", "-", "qemu-gone", "-"]
        assert web1.split()[:4] == ["web1", "8", "3", "3"]
        assert web2.split()[:4] == ["web2", "8", "1", "?"]
        assert [reason.partition(":")[0] for reason in reasons if reason.strip()] == ["db1", "web2"]


def test_a_terminal_shows_how_many_have_ended_and_is_left_with_the_table_alone() -> None:
    with fleet_of("web1", "web2") as fleet:
        words = [sys.executable, "-m", "vcpu_host.cli.main", "apply", str(fleet.goals(2))]
        shown = run_on_terminal(words, 80, environment=fleet.environment)
        assert shown.status == 0
        assert "2/2 VMs" in shown.written
        assert "2/2 VMs" not in "\n".join(shown.screen.rows)
        assert any(row.startswith("apply: 2 done") for row in shown.screen.rows)


# --- VMs in trouble ---------------------------------------------------------------------------------------------------


def test_each_vms_trouble_is_its_own() -> None:
    names = ("dead", "held", "mute", "well1", "well2", *SICK)
    with fleet_of(*names, without_agent=("lie", "mute")) as fleet, ExitStack() as ends:
        vms = fleet.vms
        ends.enter_context(dead(vms["dead"]))
        for name, (has, _) in SICK.items():
            ends.enter_context(has(vms[name]))
        other = ends.enter_context(socket.socket(socket.AF_UNIX))
        other.connect(str(vms["held"].qmp))
        other.recv(1)
        ended = for_many(fleet, "apply", "--timeout", "20", str(fleet.goals(2)))
        assert ended.status == 4
        expected = {"dead": 5, "held": 3, "mute": 5, "well1": 0, "well2": 0}
        assert ended.statuses == expected | {name: status for name, (_, status) in SICK.items()}, ended.stdout
        stands(vms["well1"], {0, 1})
        stands(vms["well2"], {0, 1})
        assert filled(vms["refuse"]) == filled(vms["held"]) == {0}


def test_ctrl_c_keeps_what_is_done_says_what_is_known_and_begins_nothing_more() -> None:
    with fleet_of("a", "b", "c") as fleet:
        rule = fleet.vms["b"].steer.rule("before:device_add", "hold")
        goals = str(fleet.goals(2))
        with ForMany(fleet, "apply", "--parallel", "1", goals) as command:
            fleet.vms["b"].steer.wait(rule)
            command.interrupt()
            ended = command.ends_for_each()
        assert (ended.status, ended.statuses) == (4, {"a": 0, "b": 4, "c": 3}), ended.stdout
        assert (ended.codes_of("b"), ended.codes_of("c")) == ({"interrupted"}, {"interrupted"})
        fleet.vms["b"].steer.release(rule)
        assert for_many(fleet, "apply", goals).status == 0
        for vm in fleet.vms.values():
            stands(vm, {0, 1})


def test_a_vm_that_hangs_holds_up_no_other_one() -> None:
    with fleet_of("a", "b", "c") as fleet:
        rule = fleet.vms["a"].steer.rule("guest:insert", "hold")
        with ForMany(fleet, "apply", "--parallel", "1", str(fleet.goals(2))) as command:
            until(lambda: [filled(fleet.vms[name]) for name in "bc"] == [{0, 1}, {0, 1}])
            assert command.process.poll() is None
            fleet.vms["a"].steer.release(rule)
            assert command.ends_for_each().status == 0


# --- by a service -----------------------------------------------------------------------------------------------------


@pytest.mark.crowd
def test_vms_that_the_service_keeps_are_reached_through_it_and_the_others_beside_it() -> None:
    names = [f"vm{number:02}" for number in range(12)]
    with fleet_of(*names, "mine") as fleet:
        kept = {name: fleet.vms[name] for name in names}
        with Serving(kept) as service:
            for name in names:
                service.holds(name)
            with refuses(kept["vm03"]):
                ended = for_many(fleet, "apply", str(fleet.goals(3)))
            assert ended.statuses == {**dict.fromkeys((*names, "mine"), 0), "vm03": 3}, ended.stdout
            assert all(service.held(name) for name in names)
            assert for_many(fleet, "--all", "list").statuses == dict.fromkeys((*names, "mine"), 0)
            for name, vm in fleet.vms.items():
                stands(vm, {0} if name == "vm03" else {0, 1, 2})


def test_a_user_without_rights_on_the_vms_reaches_all_of_them_by_the_services_socket() -> None:
    names = [f"vm{number:02}" for number in range(6)]
    with fleet_of(*names) as fleet, Serving(fleet.vms) as service:
        for name in names:
            service.holds(name)
        locks = fleet.folder / "nobody"
        locks.mkdir(mode=0o700)
        more = {"USER_ID": "65534", "VCPUCTL_SOCKET": str(service.socket), "XDG_RUNTIME_DIR": str(locks)}
        ended = for_many(fleet, "apply", str(fleet.goals(2)), environment=more)
        assert ended.statuses == dict.fromkeys(names, 0), ended.stdout
        for vm in fleet.vms.values():
            stands(vm, {0, 1})


def test_a_service_that_is_killed_is_the_trouble_of_its_own_vms_alone() -> None:
    with fleet_of("kept", "mine") as fleet, Serving({"kept": fleet.vms["kept"]}) as service:
        service.holds("kept")
        rule = fleet.vms["kept"].steer.rule("guest:insert", "hold")
        with ForMany(fleet, "apply", str(fleet.goals(2))) as command:
            fleet.vms["kept"].steer.wait(rule)
            service.process.kill()
            ended = command.ends_for_each()
        assert (ended.status, ended.statuses) == (4, {"kept": 4, "mine": 0}), ended.stdout
        assert ended.codes_of("kept") == {"service-lost"}
        fleet.vms["kept"].steer.release(rule)
        assert for_many(fleet, "apply", str(fleet.goals(2))).status == 0


# --- one VM by two names --------------------------------------------------------------------------------------------


@contextmanager
def _beside(fleet: FakeFleet, name: str, vm: str) -> Iterator[str]:
    """Another name of the VM, by its second monitor."""
    path = fleet.folder / "vcpuctl/vms.d" / f"{name}.toml"
    path.write_text(f'qmp = "{fleet.vms[vm].folder / "qmp2"}"\n')
    yield name
    path.unlink()


def _one_alone(ended: EndedForEach, vm: FakeVm, stands_at: Callable[[str], set[int]]) -> None:
    """One of the two names was done, the other one was refused with words that name both."""
    assert (ended.status, sorted(ended.statuses.values())) == (2, [0, 2]), ended.stdout + ended.stderr
    done, refused = sorted(ended.statuses, key=lambda name: ended.statuses[name])
    assert ended.codes_of(refused) == {"same-names"}
    assert {"web1", "mon2"} <= set(ended.vms[refused]["error"]["text"].replace(":", "").split())
    assert refused in ended.vms[refused]["error"]["text"]
    stands(vm, stands_at(done))


@pytest.mark.parametrize("parallel", ["1", "8"])
@pytest.mark.parametrize("kept", [(), ("web1",), ("web1", "mon2")], ids=["by nobody", "by one name", "by both"])
def test_of_two_names_of_one_vm_the_second_is_refused_whoever_holds_it(kept: tuple[str, ...], parallel: str) -> None:
    with fleet_of("web1", "web2") as fleet, _beside(fleet, "mon2", "web1"), ExitStack() as ends:
        vm = fleet.vms["web1"]
        if kept:
            service = ends.enter_context(Serving({"web1": vm}))
            service.holds("web1")
            if "mon2" in kept:
                service.moves("mon2", vm, "qmp2")
                until(lambda: {"web1", "mon2"} == service.names())
        goals = str(fleet.goals({"web1": 3, "mon2": 2}))
        ended = for_many(fleet, "apply", "--parallel", parallel, goals)
        _one_alone(ended, vm, lambda name: {"web1": {0, 1, 2}, "mon2": {0, 1}}[name])
        assert for_many(fleet, "--vm", "web1", "scale", "1").status == 0
        _one_alone(for_many(fleet, "--vm", "web1", "--vm", "mon2", "plug", "1"), vm, lambda name: {0, 1})
        # To look at both names harms nobody.
        assert for_many(fleet, "--all", "list").status == 0


def test_two_monitors_at_which_one_qemu_is_seen_to_listen_are_refused_before_anything_is_done() -> None:
    with (
        fleet_of("web1") as fleet,
        tempfile.TemporaryDirectory(prefix="va", dir="/tmp") as folder,
        # With words of a command line it is called qemu-system-x86_64.
        FakeVm(Path(folder), words=("-nodefaults",)) as vm,
    ):
        vms_d = fleet.folder / "vcpuctl/vms.d"
        for name, monitor in (("one", "qmp"), ("two", "qmp2")):
            (vms_d / f"{name}.toml").write_text(f'qmp = "{vm.folder / monitor}"\n')
        before = len(vm.steer.commands())
        goals = fleet.folder / "goals.toml"
        goals.write_text("[vms]\nweb1 = 2\none = 3\ntwo = 2\n")
        for words in (("apply", str(goals)), ("--all", "plug")):
            ended = for_many(fleet, *words)
            assert (ended.status, ended.json["error"]["code"]) == (2, "same-names"), ended.stdout
            assert str(vm.process.pid) in ended.json["error"]["text"]
        assert len(vm.steer.commands()) == before
        stands(vm, {0})
        stands(fleet.vms["web1"], {0})


# --- what is refused before anything is done --------------------------------------------------------------------------

_DOMAIN = 'libvirt = "qemu:///system"\ndomain = "d"\n'
BAD: dict[str, tuple[str | bytes, str, str]] = {
    "a VM that is not known": ("[vms]\nweb1 = 2\nweb3 = 2\n", "no-such-vm", "web3"),
    "a name that is none": ('[vms]\nweb1 = 2\n"../web2" = 2\n', "bad-vm-name", "../web2"),
    "a pattern": ('[vms]\n"web*" = 2\n', "bad-vm-name", "web*"),
    "no number": ('[vms]\nweb1 = "two"\n', "bad-goals", "two"),
    "a number below one": ("[vms]\nweb1 = 2\nweb2 = 0\n", "bad-goals", "web2"),
    "two names of one VM": ("[vms]\nweb1 = 2\nalias = 3\n", "same-names", "alias"),
    "two links to one socket": ("[vms]\nweb1 = 2\nhard = 3\n", "same-names", "hard"),
    "a name twice": ("[vms]\nweb1 = 2\nweb1 = 3\n", "bad-goals", "line 3"),
    "a name twice in JSON": ('{"vms": {"web1": 2, "web1": 3}}', "bad-goals", "web1"),
    "a file that is too large": ("[vms]\nweb1 = 2\n#" + "x" * (4 << 20), "bad-goals", "characters"),
    "bytes that are no text": (b"[vms]\nweb1 = 2 # \xff\n", "bad-goals", "no text in UTF-8"),
    "nothing": ("", "bad-goals", "vms"),
    "two names of one domain": (f"[vms.a]\nvcpus = 2\n{_DOMAIN}[vms.b]\nvcpus = 3\n{_DOMAIN}", "same-names", "b"),
    "a domain by a name that is none": (f'[vms."a b"]\nvcpus = 2\n{_DOMAIN}', "bad-vm-name", "a b"),
    "a VM whose file is wrong": ("[vms]\nweb1 = 2\nbroken = 2\n", "bad-vm-file", "broken"),
}


@pytest.fixture(scope="module")
def two() -> Iterator[FakeFleet]:
    """Two VMs, of which one has another name, too; and a file of vms.d that is wrong."""
    with fleet_of("web1", "web2") as fleet:
        vms_d = fleet.folder / "vcpuctl/vms.d"
        (fleet.folder / "link").symlink_to(fleet.vms["web1"].folder)
        (vms_d / "alias.toml").write_text(f'qmp = "{fleet.folder}/link/qmp"\n')
        (fleet.folder / "hard").hardlink_to(fleet.vms["web1"].folder / "qmp")
        (vms_d / "hard.toml").write_text(f'qmp = "{fleet.folder}/hard"\n')
        (vms_d / "broken.toml").write_text("qmp = 4\n")
        yield fleet
        for vm in fleet.vms.values():
            stands(vm, {0})


@pytest.mark.parametrize("case", BAD)
def test_a_file_with_anything_wrong_in_it_is_a_usage_error_before_anything_is_done(two: FakeFleet, case: str) -> None:
    text, code, told = BAD[case]
    path = two.folder / "bad"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = [len(vm.steer.commands()) for vm in two.vms.values()]
    ended = for_many(two, "apply", str(path))
    assert (ended.status, ended.json["error"]["code"]) == (2, code), ended.stdout
    assert told in ended.json["error"]["text"]
    assert ended.json["error"]["hint"]
    assert before == [len(vm.steer.commands()) for vm in two.vms.values()]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("apply", "/nowhere/goals"), "bad-goals"),
        (("apply", "/"), "bad-goals"),
        (("--vm", "web1", "apply", "-"), "bad-usage"),
        (("--all", "apply", "-"), "bad-usage"),
        (("--domain", "web1", "apply", "-"), "bad-usage"),
        (("--connect", "qemu:///system", "apply", "-"), "bad-usage"),
        (("--no-monitor", "apply", "-"), "bad-usage"),
        (("--all", "--no-monitor", "list"), "many-vms"),
        (("--vm", "web*", "--connect", "qemu:///system", "list"), "many-vms"),
        (("apply", "-", "--parallel", "0"), "bad-usage"),
        (("--vm", "nobody*", "list"), "no-such-vm"),
        (("--vm", "web1", "--vm", "nobody", "list"), "no-such-vm"),
        (("--vm", "web1", "--vm", "alias", "plug"), "same-names"),
        (("--all", "plug"), "bad-vm-file"),
        (("--vm", "web1", "--vm", "web2", "--agent", "/a", "list"), "many-vms"),
        (("--vm", "web1", "--vm", "web2", "watch"), "many-vms"),
        (("--all", "export"), "many-vms"),
        (("--vm", "web1", "--all", "list"), "bad-usage"),
    ],
)
def test_words_that_do_not_fit_many_vms_are_a_usage_error(two: FakeFleet, words: tuple[str, ...], code: str) -> None:
    ended = for_many(two, *words)
    assert (ended.status, ended.json["error"]["code"]) == (2, code), ended.stdout


def test_a_look_at_all_goes_on_beside_a_file_that_is_wrong(two: FakeFleet) -> None:
    ended = for_many(two, "--all", "list")
    assert ended.statuses == {"alias": 0, "broken": 2, "hard": 0, "web1": 0, "web2": 0}, ended.stdout
    assert ended.codes_of("broken") == {"bad-vm-file"}


# --- a host full of them ----------------------------------------------------------------------------------------------


@pytest.mark.crowd
def test_of_many_vms_of_which_a_fifth_is_sick_each_ends_as_it_must() -> None:
    """VMS=200 in the environment has ten of each kind of sickness; without it there are fewer, for less time."""
    tenth = int(os.environ.get("VMS", "60")) // 20
    counts = {"hang": tenth - tenth // 2, "lose": tenth // 2, "refuse": tenth, "die": tenth, "lie": tenth}
    counts["well"] = 16 * tenth
    names = {kind: [f"{kind}{number:03}" for number in range(count)] for kind, count in counts.items()}
    everybody = sorted((name for some in names.values() for name in some), key=lambda name: name[-3:])
    with fleet_of(*everybody, without_agent=tuple(names["lie"])) as fleet, ExitStack() as ends:
        wanted = dict.fromkeys(names["well"], 0)
        for kind, (has, status) in SICK.items():
            for name in names[kind]:
                ends.enter_context(has(fleet.vms[name]))
                wanted[name] = status
        ended = for_many(fleet, "apply", "--timeout", "40", str(fleet.goals(2)), within=600)
        unlike = {name: ended.vms[name] for name, status in ended.statuses.items() if status != wanted[name]}
        assert (ended.status, unlike) == (4, {})
        for name in names["well"]:
            stands(fleet.vms[name], {0, 1})
        assert all(filled(fleet.vms[name]) == {0} for name in names["refuse"])
