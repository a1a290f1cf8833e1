# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl vms`` on real processes: what is configured, what runs here, and the command that joins the two."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit import documents
from kit.fakes.lookalike import Lookalike
from kit.fakes.qemu import FakeVm
from kit.until import DEADLINE

_VCPUCTL = Path(__file__).resolve().parents[1] / "kit/fakes/vcpuctl.py"
_PORT = "-device virtserialport,chardev=vcpuctl,name=org.vcpuctl.agent.0 -chardev socket,id=vcpuctl,server=on,path="
SOON = DEADLINE


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vm", dir="/tmp") as name:
        yield Path(name)


def vcpuctl(folder: Path, *words: str, user: int = 1000) -> subprocess.CompletedProcess[str]:
    """vcpuctl of a user whose configuration is in ``folder``."""
    return subprocess.run(
        [sys.executable, "-P", str(_VCPUCTL), *words],
        capture_output=True,
        text=True,
        timeout=SOON,
        env={**os.environ, "XDG_CONFIG_HOME": str(folder), "LOCKS": str(folder), "USER_ID": str(user)},
        check=False,
    )


def looked(folder: Path) -> dict[str, Any]:
    """The document."""
    done = vcpuctl(folder, "-o", "json", "vms")
    assert (done.returncode, done.stderr) == (0, "")
    documents.check_output(done.stdout)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def process(folder: Path, pid: int) -> dict[str, Any]:
    """What is told of the process."""
    (found,) = [each for each in looked(folder)["processes"] if each["pid"] == pid]
    return dict(found)


def vms_d(folder: Path) -> Path:
    """The user's vms.d, made."""
    path = folder / "vcpuctl/vms.d"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def listening(name: str | bytes) -> Iterator[socket.socket]:
    """A socket that listens."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.bind(name)
        sock.listen(1)
        yield sock


def codes(found: dict[str, Any]) -> list[str]:
    """Why vcpuctl lacks something there."""
    return [reason["code"] for reason in found["lacks"]]


def test_the_command_that_is_told_makes_a_vm_of_a_process(folder: Path) -> None:
    name = f"web{os.getpid()}"
    words = f"-name guest={name},debug-threads=on -qmp unix:{folder}/qmp,server=on,wait=off {_PORT}{folder}/port.host"
    with FakeVm(folder, words=words.split()) as vm:
        found = process(folder, vm.process.pid)
        assert (found["name"], found["port"], found["lacks"], found["configured"]) == (name, True, [], [])
        assert found["monitors"] == [{"told": f"{folder}/qmp", "socket": f"{folder}/qmp"}]
        assert found["add"]["name"] == name

        subprocess.run(["sh", "-c", found["add"]["command"]], check=True, timeout=SOON)

        document = looked(folder)
        (file,) = [file for file in document["configured"] if file["file"] == found["add"]["file"]]
        assert (file["name"], file["qmp"], file["pids"]) == (name, f"{folder}/qmp", [vm.process.pid])
        found = process(folder, vm.process.pid)
        assert (found["configured"], found["add"]) == ([name], None)
        told = f"process {vm.process.pid} is {name}"
        assert told not in vcpuctl(folder, "vms").stdout.splitlines()
        assert told in vcpuctl(folder, "-o", "wide", "vms").stdout.splitlines()
        listed = vcpuctl(folder, "--vm", name, "-o", "json", "list", user=os.geteuid())
        assert listed.returncode == 0, listed.stderr
        assert json.loads(listed.stdout)["agent"]["connected"] is True


@pytest.mark.parametrize(
    "name", ["a b", "it's", '"$(touch x)"`y`', "back\\slash", "new\nline", "ümläut", "-n", "%s\\n", "a,b"]
)
def test_a_path_of_any_characters_is_quoted_for_the_shell_and_for_toml(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    path = f"{folder}/{name}/qmp"
    with listening(path), Lookalike(folder, "-qmp", f"unix:{path.replace(',', ',,')},server=on") as qemu:
        add = process(folder, qemu.pid)["add"]
        assert add["command"].isprintable()
        subprocess.run(["sh", "-c", add["command"]], check=True, timeout=SOON, cwd=folder)
        assert tomllib.loads(Path(add["file"]).read_text()) == {"qmp": path}
        assert not (folder / "x").exists()
        assert process(folder, qemu.pid)["configured"] == [add["name"]]


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "\x1b]0;x\x07\x1b[2J\nFORGED",
        "'; touch x; '",
        "$(touch x)",
        "\u202e\u2066[bold]x[/nope]",
        "-rf",
        "x" * 5000,
        b"\xff\xfe",
    ],
)
def test_an_untrusted_command_line_makes_one_file_in_vms_d_and_steers_no_terminal(
    folder: Path, name: str | bytes
) -> None:
    with listening(f"{folder}/q"), Lookalike(folder, "-qmp", f"unix:{folder}/q,server=on", "-name", name) as qemu:
        shown = vcpuctl(folder, "vms").stdout
        assert all(line.isprintable() and not line.startswith("FORGED") for line in shown.splitlines())
        add = process(folder, qemu.pid)["add"]
        assert Path(add["file"]) == folder / "vcpuctl/vms.d" / f"{add['name']}.toml"
        assert f"  {add['command']}" in shown.splitlines()
        subprocess.run(["sh", "-c", add["command"]], check=True, timeout=SOON, cwd=folder)
        assert [path.name for path in vms_d(folder).iterdir()] == [f"{add['name']}.toml"]
        assert not (folder / "x").exists()
        assert process(folder, qemu.pid)["configured"] == [add["name"]]


def test_processes_of_one_name_get_names_of_their_own_and_none_that_is_taken(folder: Path) -> None:
    name = f"web{os.getpid()}"
    (vms_d(folder) / f"{name}.toml").write_text('qmp = "/nowhere"')
    with (
        listening(f"{folder}/a"),
        listening(f"{folder}/b"),
        Lookalike(folder, "-name", name, "-qmp", f"unix:{folder}/a,server=on") as one,
        Lookalike(folder, "-name", name, "-qmp", f"unix:{folder}/b,server=on") as other,
    ):
        names = {process(folder, qemu.pid)["add"]["name"] for qemu in (one, other)}
        assert names == {f"{name}-2", f"{name}-3"}


def test_a_qemu_without_the_agents_port_is_told_with_what_it_lacks(folder: Path) -> None:
    with listening(f"{folder}/q"), Lookalike(folder, "-qmp", f"unix:{folder}/q,server=on") as qemu:
        found = process(folder, qemu.pid)
        assert (codes(found), found["port"]) == (["no-channel"], False)
        assert found["add"]["name"].startswith("vm")  # another QEMU of this host may have vm
        assert "org.vcpuctl.agent.0" in found["lacks"][0]["hint"]


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        (f"{_PORT}/x/a", ["no-monitor"]),
        (f"-qmp unix:/x/q {_PORT}/x/a", ["no-monitor"]),
        (f"-qmp tcp::1,server=on {_PORT}/x/a", ["no-monitor"]),
        (f"-qmp unix:/x/q,server=on {_PORT}/x/a", ["no-such-socket"]),
        (f"-qmp unix:/x/q,server=on {_PORT}/x/a,server=off", ["no-such-socket", "no-socket"]),
        (f"-qmp unix:nobodys-{os.getpid()},abstract=on,server=on {_PORT}/x/a", ["socket-elsewhere"]),
        (f"-qmp unix:/etc/passwd,server=on {_PORT}/x/a", ["not-a-socket"]),
        ("-readconfig /etc/vm.cfg", ["no-monitor", "no-channel", "not-read"]),
        (
            "-object secret,id=masterKey0 -chardev socket,id=charmonitor,fd=9,server=on -mon charmonitor,mode=control",
            ["libvirt-owned"],
        ),
    ],
)
def test_a_qemu_that_is_not_reached_is_told_with_the_reason_and_no_command(
    folder: Path, words: str, reasons: list[str]
) -> None:
    with Lookalike(folder, *words.split()) as qemu:
        found = process(folder, qemu.pid)
        assert (codes(found), found["add"]) == (reasons, None)
        assert found["libvirt"] is ("charmonitor" in words)


def test_an_abstract_socket_a_relative_one_and_one_that_was_handed_over_are_found(folder: Path) -> None:
    name = f"vms-test-{os.getpid()}"
    with listening(b"\0" + name.encode()), listening(f"{folder}/q") as handed:
        for words, here, descriptors in (
            (f"-qmp unix:{name},abstract=on,server=on", f"@{name}", ()),
            ("-qmp unix:q,server=on", f"{folder}/q", ()),
            (
                f"-chardev socket,id=c,fd={handed.fileno()},server=on -mon c,mode=control",
                f"{folder}/q",
                (handed.fileno(),),
            ),
        ):
            with Lookalike(folder, *words.split(), handed=descriptors) as qemu:
                (monitor,) = process(folder, qemu.pid)["monitors"]
                assert monitor["socket"] == here


def test_of_two_with_one_path_the_younger_one_has_it(folder: Path) -> None:
    words = ("-qmp", f"unix:{folder}/q,server=on")
    with listening(f"{folder}/q"), Lookalike(folder, *words) as first:
        # Two processes that start within a clock tick are told apart by their ids.
        with Lookalike(folder, *words) as second:
            assert codes(process(folder, first.pid)) == ["socket-taken", "no-channel"]
            assert process(folder, first.pid)["add"] is None
            assert process(folder, second.pid)["add"] is not None
        assert process(folder, first.pid)["add"] is not None


def test_a_qemu_in_a_container_whose_path_leads_elsewhere_is_told_so(folder: Path) -> None:
    outside, inside = folder / "o", folder / "i"
    outside.mkdir()
    inside.mkdir()
    words = ["-qmp", f"unix:{inside}/qmp,server=on", "-name", "boxed"]
    # What is at its path here is another VM's.
    with listening(f"{inside}/qmp"), FakeVm(outside, agent=False, inside=inside, words=words):
        (found,) = [each for each in looked(folder)["processes"] if each["name"] == "boxed"]
        assert codes(found) == ["socket-elsewhere", "no-channel"]
        assert (found["add"], found["configured"]) == (None, [])
        (vms_d(folder) / "boxed.toml").write_text(f'qmp = "{outside}/qmp"')
        (found,) = [each for each in looked(folder)["processes"] if each["name"] == "boxed"]
        assert found["configured"] == ["boxed"]


def test_what_only_names_qemu_is_none(folder: Path) -> None:
    words = ("-qmp", f"unix:{folder}/q,server=on")
    with Lookalike(folder, *words, name="socat") as other, Lookalike(folder, "-m", "1G") as mute:
        pids = {each["pid"] for each in looked(folder)["processes"]}
        assert not {other.pid, mute.pid} & pids


def test_a_broken_file_is_told_and_hides_no_other(folder: Path) -> None:
    place = vms_d(folder)
    (place / "good.toml").write_text('qmp = "/run/good"\nagent = "/run/a"')
    (place / "bad.toml").write_text("qmp = ")
    (place / "key.toml").write_text('qmp = "/q"\nsocket = "/m"')
    (place / "tcp.toml").write_text('qmp = "tcp:localhost:1"')
    (place / "two words.toml").write_text('qmp = "/q"')
    (place / "dangling.toml").symlink_to("nowhere")
    (place / "directory.toml").mkdir()
    os.mkfifo(place / "fifo.toml")
    (place / "notes.txt").touch()
    (place / ".hidden.toml").touch()
    files = {file["name"]: file for file in looked(folder)["configured"] if file["file"].startswith(str(place))}
    troubles = {name: file["trouble"]["code"] for name, file in files.items() if file["trouble"]}
    assert troubles == {
        **dict.fromkeys(("bad", "key", "directory", "fifo"), "bad-vm-file"),
        "tcp": "not-unix",
        "two words": "bad-vm-name",
        "dangling": "no-such-vm",
    }
    assert (files["good"]["qmp"], files["good"]["agent"]) == ("/run/good", "/run/a")
    assert len(files) == 8
    shown = vcpuctl(folder, "vms").stdout
    assert "unknown key 'socket'" in shown
    for name in files:
        assert any(line.startswith(f"{name} ") for line in shown.splitlines())


@pytest.mark.parametrize("words", ["--vm web1 vms", "--qmp /q vms", "--agent /a vms"])
def test_vms_takes_no_vm(folder: Path, words: str) -> None:
    done = vcpuctl(folder, *shlex.split(words))
    assert (done.returncode, done.stdout) == (2, "")
    assert "takes no VM" in done.stderr


#: All that is needed is imported before the rights go: nobody may not read root's Python. So is the codec that makes
#: names printable, which a look needs if any process on this machine has such a name at that moment.
_AS_NOBODY = """
import encodings.unicode_escape, json, os, sys
from vcpu_host.cli import vms
from vcpu_host.documents.vms import of_vms
os.setgid(65534)
os.setuid(65534)
print(json.dumps({"schema_version": 1, **of_vms(vms.look())}))
"""


def test_a_socket_that_this_user_may_not_use_is_told_and_gets_no_command(folder: Path) -> None:
    (folder / "private").mkdir()
    folder.chmod(0o755)
    path = folder / "private/q"
    with listening(str(path)), Lookalike(folder, "-qmp", f"unix:{path},server=on") as qemu:
        path.chmod(0o700 if os.geteuid() == 0 else 0)
        for mode in (0o755, 0o700):
            if os.geteuid() == 0:
                path.parent.chmod(mode)
                done = subprocess.run(
                    [sys.executable, "-c", _AS_NOBODY],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=SOON,
                    env={**os.environ, "XDG_CONFIG_HOME": str(folder)},
                )
                document = json.loads(done.stdout)
                documents.check(document)
            else:
                document = looked(folder)
            (found,) = [each for each in document["processes"] if each["pid"] == qemu.pid]
            assert (codes(found), found["add"]) == (["not-permitted", "no-channel"], None)
