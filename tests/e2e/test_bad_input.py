# SPDX-License-Identifier: Apache-2.0
"""Bad input: a clear message, exit 2 or 3 (5 where nobody is there), and nothing has changed."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kit.e2e.machine import VCPUCTL, Machine, Vcpuctl
from kit.ended import Ended
from kit.lab import Cache, Qmp, qemu

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SAME_SLOT = "socket-id=0,core-id=0,thread-id=1"

#: The words, the exit status, and what the message has to hold. Slots 1 to 15 are empty, 0 is the boot CPU.
REQUESTS: tuple[tuple[str, int, str], ...] = (
    # unknown slots
    ("plug --slot 16", 2, "there is no slot 16: this VM has slots 0 to 15"),
    ("plug --slot 99999999999999999999", 2, "there is no slot"),
    ("plug --slot vcpu-1", 2, "'vcpu-1' is no slot index, no id"),
    ("plug --slot 1 nonsense", 2, "'nonsense' is no slot index"),
    ("unplug --slot 16", 2, "there is no slot 16"),
    ("online 16", 2, "there is no slot 16"),
    ("offline vcpu-9", 2, "'vcpu-9' is no slot index"),
    ("plan plug --slot 16", 2, "there is no slot 16"),
    # props out of range, unknown, missing, malformed
    ("plug --slot socket-id=9", 2, "no slot has socket-id=9"),
    ("plug --slot socket-id=0,core-id=0,thread-id=2", 2, "no slot has"),
    ("plug --slot die-id=0", 2, "slots of this VM have no 'die-id'"),
    ("plug --slot socket-id=", 2, "is not name=value"),
    ("plug --slot =1", 2, "is not name=value"),
    ("plug --slot socket-id=0,socket-id=1", 2, "'socket-id' is given twice"),
    # occupied, or not to be had at all
    ("plug --slot 0", 3, "slot 0 is occupied by a CPU that was there at start"),
    ("plug --slot socket-id=0", 3, "slot 0 is occupied"),  # all of them, so that one too
    ("unplug --slot 0", 3, "boot CPU"),
    # more than there are
    ("plug -n 16", 3, "cannot plug 16 vCPUs: only 15 are left"),
    ("plug -n 1000000000", 3, "cannot plug 1000000000 vCPUs"),
    ("unplug -n 1", 3, "cannot unplug 1 vCPU: none is left"),
    ("unplug -n 1000000000", 3, "none is left"),
    ("scale 17", 3, "17 vCPUs are more than the 16"),
    ("scale 1000000000", 3, "more than the 16"),
    # the same twice
    ("plug --slot 1 1", 2, "slot 1 is named twice"),
    (f"plug --slot 1 {SAME_SLOT}", 2, "slot 1 is named twice, by '1' and by"),
)

#: What the command line's grammar refuses: QEMU is not even looked at.
GRAMMAR: tuple[tuple[str, str], ...] = (
    *((f"{command} 0", "is not a number of at least 1") for command in ("plug -n", "unplug -n", "scale")),
    *((f"{command} x", "is not a number of at least 1") for command in ("plug -n", "unplug -n", "scale")),
    ("plug -n 1.5", "is not a number of at least 1"),
    ("plug -n 1e9", "is not a number of at least 1"),
    ("plug -n ２", "is not a number of at least 1"),
    ("scale -1", ""),
    ("plug -n -1", ""),
    ("plug --count=-1", "is not a number of at least 1"),
    ("plug -n 1 --slot 2", "exclude each other"),
    ("plug --slot", "--slot needs a value"),
    ("scale", "vcpuctl scale needs N"),
    ("offline", "vcpuctl offline needs a slot"),
    ("resize 4", "no command 'resize'"),
    ("", "vcpuctl needs a command"),
    ("--timeout 0 list", "is not a time"),
    ("--timeout nan list", "is not a time"),
    ("-o yaml list", "'yaml' is none of them"),
    ("--vm x list", "exclude each other"),
)  # fmt: skip


def cli(*words: str, prefix: tuple[str, ...] = (), timeout: float = 60.0) -> Ended:
    """``vcpuctl`` with just these words."""
    argv = [*prefix, str(VCPUCTL), "-o", "json", *words]
    return Vcpuctl.wait(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), timeout)


def check(ended: Ended, status: int, words: str) -> None:
    """It ended as it should, with the words where people and where programs look for them."""
    said = (ended.stdout, ended.stderr)
    assert ended.status == status, said
    assert "Traceback" not in ended.stdout + ended.stderr, said
    if status == 2 and not ended.stdout:
        assert words in ended.stderr, said  # the grammar's own
        return
    assert words in ended.stdout, said
    if "error" in ended.json:
        assert ended.json["exit_status"] == status
        assert words in ended.stderr, said
    else:
        assert ended.json["outcome" if "outcome" in ended.json else "refusals"], said


def heard(client: socket.socket) -> bytes:
    """What the other end said before it went."""
    client.settimeout(10)
    try:
        return client.recv(100)
    except ConnectionResetError:  # it left our greeting unread, and what it had said would have come first
        return b""


def test_requests_that_cannot_be_met_change_nothing(machine: Machine) -> None:
    before = machine.state()
    for words, status, text in REQUESTS:
        check(machine.vcpuctl(*words.split()), status, text)
    check(machine.vcpuctl("plug", "--slot", ""), 2, "no slot index")
    check(machine.vcpuctl("plug", "--slot", "\x1b[31m"), 2, "no slot index")
    assert machine.sent("device_add") == []
    assert machine.sent("device_del") == []
    assert machine.state() == before
    # and the VM is as good as ever
    assert machine.vcpuctl("plug", "--slot", SAME_SLOT).status == 0
    assert machine.online() == {0, 1}
    check(machine.vcpuctl("plug", "-n", "15"), 3, "only 14 are left")
    assert machine.vcpuctl("unplug", "--slot", "vcpu-1").status == 0
    assert machine.state() == before


def test_what_the_grammar_refuses_is_a_usage_error(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "qmp.sock")
    for words, text in GRAMMAR:
        ended = cli("--qmp", nowhere, *words.split(" ")) if words else cli("--qmp", nowhere)
        check(ended, 2, text)
        assert len(ended.stderr.splitlines()) == 2
    check(cli("list"), 2, "no VM is named")
    check(cli("--vm", "no-such-vm", "list"), 2, "no-such-vm")
    check(cli("--vm", "../../../etc/passwd", "list"), 2, "passwd")


def test_a_path_that_is_no_monitor_is_told_apart_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vb", dir="/tmp") as short:
        folder = Path(short)
        (folder / "file").write_text("x")
        check(cli("--qmp", str(folder / "none"), "scale", "2"), 5, "does not exist")
        check(cli("--qmp", str(folder / "file"), "scale", "2"), 2, "is not a socket")
        check(cli("--qmp", str(folder / "file" / "x"), "scale", "2"), 2, "Not a directory")
        check(cli("--qmp", short, "scale", "2"), 2, "is not a socket")
        check(cli("--qmp", "/tmp/" + "x" * 120, "list"), 2, "Linux allows 107")
        check(cli("--qmp", "", "list"), 2, "is no path of a socket")

        with closing(socket.socket(socket.AF_UNIX)) as left:
            left.bind(str(folder / "left"))
        check(cli("--qmp", str(folder / "left"), "list"), 5, "nobody listens on")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as datagram:
            datagram.bind(str(folder / "datagram"))
            check(cli("--qmp", str(folder / "datagram"), "list"), 2, "is not a QMP monitor")

        for greeting, status, text in (
            (b"QEMU 10.0 monitor\r\n(qemu) ", 2, "is not a QMP monitor"),
            (b"", 3, "no QMP greeting"),
        ):
            with closing(socket.socket(socket.AF_UNIX)) as listener:
                path = folder / f"listener{status}"
                listener.bind(str(path))
                listener.listen(1)
                argv = [str(VCPUCTL), "-o", "json", "--qmp", str(path), "scale", "2"]
                process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                listener.settimeout(30)
                client, _ = listener.accept()
                with closing(client):
                    client.sendall(greeting)
                    check(Vcpuctl.wait(process, 30), status, text)
                    assert heard(client) == b""  # it went without a word


def test_sockets_of_the_vm_that_are_not_its_monitor_or_not_free(machine: Machine) -> None:
    before = machine.state()
    qmp = str(machine.vm.qmp_socket)

    with closing(Qmp(machine.vm.qmp_socket)):
        check(machine.vcpuctl("--timeout", "3600", "scale", "2"), 3, "another client has this monitor")
    assert machine.vcpuctl("list").status == 0

    # Whether the agent's port says something by itself or not: it is no monitor, and hears nothing.
    ended = cli("--qmp", str(machine.vm.agent_socket), "scale", "2")
    check(ended, ended.status, "is not a QMP monitor" if ended.status == 2 else "no QMP greeting")
    assert ended.status in (2, 3)
    with tempfile.TemporaryDirectory(prefix="vb", dir="/tmp") as short, closing(socket.socket(socket.AF_UNIX)) as other:
        path = Path(short, "other")
        other.bind(str(path))
        other.listen(1)
        other.setblocking(False)
        for agent in (
            path,
            machine.vm.dir / "shell.sock",
            machine.vm.qmp_socket,
            Path(short, "none"),
            Path("/dev/null"),
        ):
            check(cli("--qmp", qmp, "--agent", str(agent), "scale", "2"), 2, "is not the socket of the agent's port")
        with pytest.raises(BlockingIOError):
            other.accept()  # not even connected to
    assert machine.vm.shell("echo the shell heard nothing") == "the shell heard nothing\n"
    ended = cli("--qmp", qmp, "--agent", str(machine.vm.agent_socket), "list")
    assert ended.status == 0
    assert ended.json["agent"]["connected"] is True

    assert machine.sent("device_add") == []
    assert machine.state() == before


def test_a_user_without_permission_is_told_whose_socket_it_is(machine: Machine) -> None:
    before = machine.state()
    machine.vm.qmp_socket.chmod(0)
    # Root is above permissions by its capabilities alone.
    prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    check(cli("--qmp", str(machine.vm.qmp_socket), "scale", "2", prefix=prefix), 3, "permission denied")
    ended = cli("--qmp", str(machine.vm.qmp_socket), "doctor", prefix=prefix)
    assert (ended.status, ended.json["findings"][-1]["code"]) == (1, "not-permitted")
    assert f"(uid {os.geteuid()})" in ended.json["findings"][-1]["fix"]
    machine.vm.qmp_socket.chmod(0o600)
    assert machine.state() == before
    assert machine.vcpuctl("list").status == 0


@pytest.fixture
def bare(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Qmp]]:
    """A QEMU without a guest, of the machine asked for: its free monitor's path, and the lab's own."""
    with tempfile.TemporaryDirectory(prefix="vb", dir="/tmp") as short, qemu.find(Cache(), qemu.STANDARD) as binary:
        listeners = {}
        for name in ("qmp", "oracle"):
            listeners[name] = socket.socket(socket.AF_UNIX)
            listeners[name].bind(f"{short}/{name}")
            listeners[name].listen(1)
        argv = [*binary.system, "-machine", request.param[0], "-smp", request.param[1], "-accel", "tcg", "-m", "64"]
        argv += ["-nodefaults", "-no-user-config", "-display", "none"]
        for name, listener in listeners.items():
            argv += ["-chardev", f"socket,id={name},fd={listener.fileno()},server=on,wait=off"]
            argv += ["-mon", f"chardev={name},mode=control"]
        fds = [listener.fileno() for listener in listeners.values()]
        process = subprocess.Popen(argv, env={**os.environ, **binary.env}, pass_fds=fds)
        for listener in listeners.values():
            listener.close()
        try:
            with closing(Qmp(Path(short, "oracle"))) as oracle:
                yield Path(short, "qmp"), oracle
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("bare", [("microvm", "1")], indirect=True, ids=["microvm"])
def test_a_machine_without_hotplug_is_refused_as_such(bare: tuple[Path, Qmp]) -> None:
    path, oracle = bare
    before = oracle.execute("query-cpus-fast")
    for words in ("plug", "plug -n 2", "unplug", "scale 1", "scale 2"):
        check(cli("--qmp", str(path), *words.split()), 3, "does not support hot-plugging CPUs")
    ended = cli("--qmp", str(path), "doctor")
    assert ended.status == 1
    assert "no-hotplug" in {finding["code"] for finding in ended.json["findings"]}
    listed = cli("--qmp", str(path), "list")
    assert listed.status == 0
    # what it was started with is shown, under the number that the guest knows it by
    shown = [(slot["state"], slot["removable"], slot["threads"][0]["host_tid"]) for slot in listed.json["slots"]]
    assert shown == [("unknown", False, before[0]["thread-id"])]
    assert listed.json["vm"]["no_hotplug"]["code"] == "no-hotplug"
    assert oracle.execute("query-cpus-fast") == before


@pytest.mark.parametrize("bare", [("q35", "1")], indirect=True, ids=["q35"])
def test_a_vm_without_maxcpus_has_nothing_to_plug_and_doctor_says_how_to_get_it(bare: tuple[Path, Qmp]) -> None:
    path, oracle = bare
    before = oracle.execute("query-hotpluggable-cpus")
    check(cli("--qmp", str(path), "plug"), 3, "cannot plug 1 vCPU: none is left")
    check(cli("--qmp", str(path), "plug", "--slot", "1"), 2, "there is no slot 1")
    check(cli("--qmp", str(path), "scale", "2"), 3, "2 vCPUs are more than the 1")
    check(cli("--qmp", str(path), "unplug"), 3, "none is left")
    ended = cli("--qmp", str(path), "doctor")
    findings = {finding["code"]: finding for finding in ended.json["findings"]}
    assert ended.status == 1
    assert "maxcpus=" in findings["no-free-slot"]["fix"]
    assert "org.vcpuctl.agent.0" in findings["no-channel"]["fix"]
    # what could be done with an agent says that there is none
    check(cli("--qmp", str(path), "online", "0"), 5, "no virtio-serial port named org.vcpuctl.agent.0")
    assert oracle.execute("query-hotpluggable-cpus") == before
