# SPDX-License-Identifier: Apache-2.0
"""What users get wrong on the command line: each is told in one line what it is, and in one what to do."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from kit.fakes.qemu import FakeVm
from vcpu_host.cli.main import main


def _name(option: str) -> str:
    """What an option with its value is called, when it is told of."""
    return {"-q": "-q/--quiet", "-v": "-v/--verbose"}.get(option, option.partition(" ")[0])


#: A command line, a part of what is said to be wrong, and a part of what is said to be done.
#: VM stands for --qmp and the monitor of a VM with two CPUs from boot on, one plugged, and room for eight; DIR for a
#: directory, LONG for a path that is too long for a socket, ESCAPES for what would colour a terminal.
WRONG = [
    # The command.
    ("", "vcpuctl needs a command", "see vcpuctl --help"),
    ("frobnicate", "no command 'frobnicate'", "see vcpuctl --help"),
    ("pulg 3", "no command 'pulg'", "did you mean plug?"),
    ("3", "no command '3'", "see vcpuctl --help"),
    ("plan", "vcpuctl plan needs OPERATION", "see vcpuctl plan --help"),
    ("plan lst", "no command 'lst' in vcpuctl plan", "see vcpuctl plan --help"),
    ("migrate", "vcpuctl migrate needs STEP", "see vcpuctl migrate --help"),
    ("numa asign --policy pack", "no command 'asign'", "did you mean assign?"),
    ("help plugg", "no command 'plugg'", "did you mean plug?"),
    ("VM list slots", "does not take slots", "see vcpuctl list --help"),
    # Options.
    ("--timout 5s list", "vcpuctl does not take --timout", "did you mean --timeout?"),
    ("VM plug --cou 3", "vcpuctl plug does not take --cou", "did you mean --count?"),
    ("VM plug -x", "does not take -x", "see vcpuctl plug --help"),
    ("--slot 3 plug", "vcpuctl does not take --slot", "behind the command: vcpuctl plug --slot"),
    ("VM list --dry-run", "vcpuctl list does not take --dry-run", "see vcpuctl list --help"),
    ("VM plan plug 2 --dry-run", "does not take --dry-run", "see vcpuctl plan plug --help"),
    ("--qmp", "--qmp needs a value", "for example: vcpuctl"),
    ("--vm a --qmp b list", "--qmp and --vm exclude each other", "for example: vcpuctl"),
    ("VM -q -v list", "exclude each other", "for example: vcpuctl"),
    # On either side of the command.
    *(
        (f"{first} {command} {second}", f"{told} exclude each other", "for example: vcpuctl")
        for command, pairs in {
            "list": (("-q", "-v"), ("-v", "-q")),
            "unplug": tuple(permutations(("--vm web1", "--all", "--qmp DIR/q", "--domain web1"), 2)),
            "plan unplug": (("--vm nosuch", "--all"), ("--all", "--qmp DIR/q")),
            "autoscale off": (("--qmp DIR/q", "--all"),),
            "log": (("--domain web1", "--vm web1"),),
        }.items()
        for first, second in pairs
        for told in [f"{_name(second)} and {_name(first)}"]
    ),
    ("-o yaml list", "'yaml' is none of them", "see vcpuctl --help"),
    ("-o jsno list", "'jsno' is none of them", "did you mean json?"),
    ("VM --log-format xml list", "--log-format is one of text, json", "see vcpuctl --help"),
    ("VM plug --atomic=yes", "--atomic takes no value", "for example: vcpuctl"),
    # Amounts, times, nodes and policies.
    ("VM plug 0", "'0' is not a number of at least 1", "see vcpuctl plug --help"),
    ("VM plug -3", "'-3' is not a number", "see vcpuctl plug --help"),
    ("VM plug 1.5", "'1.5' is not a number", "see vcpuctl plug --help"),
    ("VM plug cpu3", "'cpu3' is not a number of vCPUs", "vcpuctl plug --slot cpu3"),
    ("VM unplug socket=1", "'socket=1' is not a number", "vcpuctl unplug --slot socket=1"),
    ("VM plug 2 3", "does not take 3", "vcpuctl plug --slot 3"),
    ("VM plug 2 -n 3", "exclude each other", "for example: vcpuctl --vm vm1 plug 3"),
    ("VM plug -n", "-n/--count needs a value", "for example: vcpuctl"),
    ("VM plug 2 --slot 5", "exclude each other", "for example: vcpuctl"),
    ("VM scale", "vcpuctl scale needs N", "for example: vcpuctl --vm vm1 scale 8"),
    ("VM scale many", "'many' is not a number", "see vcpuctl scale --help"),
    ("VM --timeout soon plug", "'soon' is not a time: 30, 30s", "see vcpuctl --help"),
    ("VM plug --timeout 0", "'0' is not a time", "see vcpuctl plug --help"),
    ("VM plug --node one", "'one' is not the number of a NUMA node", "see vcpuctl plug --help"),
    ("VM plug --policy spred", "'spred' is none of them", "did you mean spread?"),
    ("VM plug --slot 5 --node 0", "or chosen by a policy or a node, not both", "see vcpuctl plug --help"),
    ("VM scale 2 --in-guest --policy pack", "none is plugged or unplugged here", "see vcpuctl scale --help"),
    # Slots.
    ("VM offline", "vcpuctl offline needs a slot", "for example: vcpuctl --vm vm1 offline 3"),
    ("VM plug --slot", "--slot needs a value", "for example: vcpuctl"),
    ("VM plug --slot 99", "no slot 99: this VM has slots 0 to 7", "vcpuctl list"),
    ("VM unplug --slot 4-2", "4-2 is no range", "vcpuctl list"),
    ("VM unplug --slot vcpu-9", "no id of a plugged CPU", "vcpuctl list"),
    ("VM unplug --slot cpu9", "no slot shows a cpu9", "vcpuctl list"),
    ("VM unplug --slot socket=9", "no slot has socket=9", "vcpuctl list"),
    ("VM plan unplug --slot sokcet=0", "no 'sokcet': they have core-id, socket-id, thread-id", "vcpuctl list"),
    ("VM offline core=", "'core=' in 'core=' is not name=value", "vcpuctl list"),
    ("VM unplug --slot 2 vcpu-2", "slot 2 is named twice", "vcpuctl list"),
    ("VM offline ''", "'' is no slot index", "vcpuctl list"),
    ("VM offline ESCAPES", r"'\x1b[31m\n' is no slot index", "vcpuctl list"),
    # The VM and its sockets.
    ("list", "no VM is named", "give --qmp SOCKET, --domain NAME or --vm NAME"),
    ("--vm wbe1 list", "there is no wbe1.toml", "did you mean web1?"),
    ("--vm nobody list", "there is no nobody.toml", "give --qmp SOCKET"),
    ("--vm ../web1 list", "'../web1' is no name of a VM", "letters, digits"),
    ("--vm broken list", "broken.toml: Invalid value", "mend the file: qmp ="),
    ("--vm key list", "unknown key 'socket'", "mend the file: qmp ="),
    ("--vm empty list", "qmp is missing", "mend the file: qmp ="),
    ("--vm folder list", "folder.toml: Is a directory", "mend the file: qmp ="),
    *(
        (f"--vm {vm} {command}", f"{vm}.toml: {key} has a NUL character", f"mend the file: {key} =")
        for vm, key in (("nul", "qmp"), ("nul-agent", "agent"))
        for command in (
            *("list", "plug", "plan plug", "export", "log", "autoscale status"),
            "migrate check --to DIR/q",
            "agent-proxy --listen DIR/p",
        )
    ),
    ("--vm nul numa assign --policy pack", "nul.toml: qmp has a NUL character", "mend the file: qmp ="),
    ("--vm nul-domain list", "nul-domain.toml: domain has a NUL character", 'libvirt = "URI"'),
    ("apply DIR/nul.json", "domain has a NUL character", "name each VM with its vCPUs"),
    ("apply DIR/half.json", "domain has a character that cannot be written in UTF-8", "name each VM with its vCPUs"),
    ("--vm no-agent list", "no-agent.toml: agent is empty: ''", "or leave agent out"),
    ("--vm no-path list", "no-path.toml: agent is empty: 'unix:,server=on'", "or leave agent out"),
    ("--vm number list", "number.toml: agent is no path", "or leave agent out"),
    ("--vm often list", "workload is none of warn, ignore, refuse", 'mend the file: workload = "warn"'),
    ("--vm monitored list", "monitor is for a VM that libvirt owns", "leave monitor out"),
    ("--vm perhaps list", "monitor is neither true nor false", "monitor = false, or leave it out"),
    ("--domain '' list", "domain is empty", "the domain's name or UUID"),
    ("VM migrate check --to ''", "'' is no path of a socket", "the monitor of the QEMU that waits"),
    ("--qmp '' list", "'' is no path of a socket", "give the path of QEMU's -qmp unix socket"),
    ("--qmp DIR list", "is not a socket", "give the path of QEMU's -qmp unix socket"),
    ("--qmp tcp:localhost:4444 list", "is no unix socket", "-qmp unix:PATH,server=on"),
    ("--qmp LONG list", "Linux allows 107", "a shorter path"),
    ("VM --agent pty:/dev/pts/1 list", "is no unix socket", "-qmp unix:PATH,server=on"),
    ("VM --agent DIR/agent plug", "is not the socket of the agent's port", "leave --agent out"),
    # Commands that take no VM, or take one otherwise than others do.
    ("--vm web1 vms", "vcpuctl vms takes no VM", "leave --vm out"),
    ("--qmp '' vms", "vcpuctl vms takes no VM", "leave --qmp out"),
    ("--no-monitor vms --connect test:///default", "vcpuctl vms takes no VM", "leave --no-monitor out"),
    ("--agent '' apply DIR/goals.json", "vcpuctl apply takes the VMs of its file", "leave --agent out"),
    ("--vm web1 serve", "vcpuctl serve takes no VM", "leave --vm out: it keeps every VM of vms.d"),
    ("--all serve", "vcpuctl serve takes no VM", "leave --all out"),
    ("VM --agent DIR/agent serve", "vcpuctl serve takes no VM", "leave --qmp and --agent out"),
    ("--qmp '' serve", "vcpuctl serve takes no VM", "leave --qmp out"),
    ("--domain web1 --connect test:///default serve", "vcpuctl serve takes no VM", "leave --domain and --connect out"),
    ("--no-monitor serve", "vcpuctl serve takes no VM", "leave --no-monitor out"),
    ("serve --socket ''", "'' is no path of a socket", "choose another path"),
    ("--qmp '' log", "'' is no path of a socket", "give the path of QEMU's -qmp unix socket"),
    ("--connect test:///default log", "--connect is about a domain, and none is named", "give --domain NAME"),
    ("--no-monitor log", "--no-monitor is about a domain, and none is named", "give --domain NAME"),
    ("--agent DIR/agent log", "no VM is named", "give --qmp SOCKET"),
    ("VM --agent '' log", "'' is no path of a socket", "give the path of the agent's port"),
    ("--all --connect test:///default log", "are about one domain", "leave it out"),
    ("--all --agent DIR/agent autoscale status", "--agent names the socket of one VM", "into the VMs' files"),
    # Files.
    ("VM agent-proxy", "vcpuctl agent-proxy needs --listen", "for example: vcpuctl"),
    ("VM agent-proxy --listen ''", "'' is no path of a socket", "choose another path"),
    ("VM agent-proxy --listen DIR/nowhere/s", "nowhere/s: No such file or directory", "choose another path"),
    ("VM agent-proxy --listen DIR/export.json", "exists and is no socket", "choose another path"),
    ("VM numa assign", "vcpuctl numa assign needs --map or --policy", "for example: vcpuctl"),
    ("VM numa assign --map DIR/nowhere", "nowhere: No such file", "write a line for each node"),
    ("VM numa assign --map DIR/export.json", "export.json: Invalid", "write a line for each node"),
    ("VM migrate check", "vcpuctl migrate check needs --to or --from", "for example: vcpuctl"),
    ("VM migrate check --from DIR/nowhere", "nowhere: No such file", "vcpuctl -o json export"),
    ("VM migrate check --from DIR/export.json", "its schema_version is None", "vcpuctl -o json export"),
    ("VM migrate check --from DIR/bare.json", "bare.json: vm is missing", "vcpuctl -o json export"),
    ("VM migrate check --from DIR/deep.json", "deep.json: it is nested too deeply", "vcpuctl -o json export"),
    ("VM migrate check --from DIR/long.json", "long.json: a number in it is too long", "vcpuctl -o json export"),
    ("VM numa assign --map DIR/deep.toml", "deep.toml: it is nested too deeply", "write a line for each node"),
    ("VM numa assign --map DIR/long.toml", "long.toml: a number in it is too long", "write a line for each node"),
    ("apply DIR/nowhere", "nowhere: No such file", "name each VM with its vCPUs"),
    ("apply DIR/deep.json", "deep.json: it is nested too deeply", "name each VM with its vCPUs"),
    ("apply DIR/long.json", "long.json: a number in it is too long", "name each VM with its vCPUs"),
    ("apply DIR/deep.toml", "deep.toml: it is nested too deeply", "name each VM with its vCPUs"),
    ("apply DIR/long.toml", "long.toml: a number in it is too long", "name each VM with its vCPUs"),
    ("--vm deep list", "deep.toml: it is nested too deeply", "mend the file: qmp ="),
    ("--vm long list", "long.toml: a number in it is too long", "mend the file: qmp ="),
    ("VM migrate check --to MONITOR", "is the monitor of the VM itself", "--to names the QEMU that waits"),
]

#: What can be read and cannot be done: exit status 3, told in the operation's own result.
REFUSED = [
    ("VM plug 99", "only 5 are left", "maxcpus=N"),
    ("VM plan scale 99", "more than the 8 that this VM can have", "maxcpus=N"),
    ("VM unplug 9", "only 2 are left", "were there at start"),
    ("VM unplug --slot 0", "the boot CPU", "choose another slot"),
    ("VM plug --slot 1", "is occupied by a CPU that was there at start", "choose an empty slot"),
    ("VM offline cpu0 --dry-run", "cpu0", "leave it online"),
    ("VM online 5", "slot 5 is empty", "plug it"),
    ("VM plug --node 5", "there is no node 5", "-numa node"),
]


#: The files of some VMs, right and wrong.
FILES = {
    "web1": 'qmp = "/q"',
    "broken": "qmp =",
    "key": "socket = '/s'",
    "empty": "",
    "nul": r'qmp = "/a\u0000b"',
    "nul-agent": 'qmp = "/q"\n' + r'agent = "\u0000"',
    "nul-domain": 'libvirt = "test:///default"\n' + r'domain = "a\u0000"',
    "no-agent": 'qmp = "/q"\nagent = ""',
    "no-path": 'qmp = "/q"\nagent = "unix:,server=on"',
    "number": 'qmp = "/q"\nagent = 3',
    "often": 'qmp = "/q"\nworkload = "often"',
    "monitored": 'qmp = "/q"\nmonitor = true',
    "perhaps": 'libvirt = "test:///default"\ndomain = "a"\nmonitor = "perhaps"',
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, for sockets; with the files of some VMs, right and wrong."""
    with tempfile.TemporaryDirectory(prefix="vw", dir="/tmp") as name:
        vms = Path(name, "vcpuctl/vms.d")
        vms.mkdir(parents=True)
        Path(name, "vm").mkdir()
        for vm, text in FILES.items():
            (vms / f"{vm}.toml").write_text(text)
        (vms / "folder.toml").mkdir()
        Path(name, "export.json").write_text("{}")
        for goals, domain in {"nul": r"a\u0000", "half": r"\ud800"}.items():
            wanted = f'{{"vcpus": 2, "libvirt": "test:///default", "domain": "{domain}"}}'
            Path(name, f"{goals}.json").write_text(f'{{"vms": {{"web1": {wanted}}}}}')
        Path(name, "bare.json").write_text('{"schema_version": 1}')
        for kind, value in {"deep": "[" * 100_000, "long": "9" * 5000}.items():
            Path(name, f"{kind}.json").write_text(f'{{"vms": {value}')
            for place in (Path(name), vms):
                (place / f"{kind}.toml").write_text(f"qmp = {value}\n")
        yield Path(name)


@pytest.fixture(scope="module")
def vm(folder: Path) -> Iterator[FakeVm]:
    """Two CPUs from boot on, one plugged."""
    with FakeVm(folder / "vm", "--maxcpus", "8", "--smp", "2") as vm:
        yield vm


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, folder: Path, vm: FakeVm) -> None:
    for name in ("VCPUCTL_VM", "VCPUCTL_QMP"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(folder))
    # No socket can be made there: a service that is not to start would end, and not go on for ever.
    monkeypatch.setenv("VCPUCTL_SOCKET", str(folder / "export.json"))
    assert main(["--qmp", str(vm.qmp), "-q", "plug", "--slot", "2"]) == 0


def _words(line: str, vm: FakeVm, folder: Path) -> list[str]:
    named = {
        "VM": ["--qmp", str(vm.qmp)],
        "MONITOR": [str(vm.qmp)],
        "LONG": ["/" + "x" * 200],
        "ESCAPES": ["\x1b[31m\n"],
    }
    words = [word for each in shlex.split(line) for word in named.get(each, [each])]
    return [str(folder) + word.removeprefix("DIR") if word.startswith("DIR") else word for word in words]


def _document(words: list[str], capsys: pytest.CaptureFixture[str], status: int) -> dict[str, Any]:
    """What is on stdout, which is one document."""
    assert main(["-o", "json", *words]) == status
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    return document


@pytest.mark.parametrize(("line", "what", "to_do"), WRONG, ids=[line or "nothing" for line, _, _ in WRONG])
def test_a_wrong_input_is_told_in_two_lines_or_in_one_document(
    line: str, what: str, to_do: str, vm: FakeVm, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(line, vm, folder)
    assert main(words) == 2
    said = capsys.readouterr()
    first, second, *more = said.err.splitlines()
    assert (said.out, more) == ("", [])
    assert first.startswith("vcpuctl: ")
    assert what in first
    assert second.startswith("         ")
    assert to_do in second
    assert said.err.replace("\n", "").isprintable()
    if "-o" in words:
        return
    document = _document(words, capsys, 2)
    assert set(document) == {"schema_version", "error", "exit_status"}
    assert document["exit_status"] == 2
    assert what in document["error"]["text"]
    assert to_do in document["error"]["hint"]


@pytest.mark.parametrize(("line", "what", "to_do"), REFUSED, ids=[line for line, _, _ in REFUSED])
def test_what_cannot_be_done_is_refused_in_the_result_and_nothing_changes(
    line: str, what: str, to_do: str, vm: FakeVm, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(line, vm, folder)
    before = vm.guest_cpus()
    assert main(words) == 3
    said = capsys.readouterr()
    assert said.err == ""
    (reason,) = [row for row in said.out.splitlines() if what in row]
    assert to_do in reason
    document = _document(words, capsys, 3)
    assert what in json.dumps(document)
    assert "error" not in document
    assert vm.guest_cpus() == before


def test_the_table_is_as_long_as_was_promised() -> None:
    lines = [line for line, _, _ in (*WRONG, *REFUSED)]
    assert len(lines) >= 60
    assert len(set(lines)) == len(lines)
