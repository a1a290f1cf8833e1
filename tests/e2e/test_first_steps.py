# SPDX-License-Identifier: Apache-2.0
"""README's quick start for one's own VM, word by word, on a stock Debian 12 that the lab's runner knows nothing of.

Both the guest and the host are fresh Debian roots with apt. Each has the packages' dependencies already (there is no
network here), and nothing else of ours. The commands are taken out of README.md and not changed in any way: what they
name below /run is in a mount namespace of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from lab import Cache, Qmp, host, qemu
from lab.cache import digest

from e2e.conftest import ROOT, VCPUCTL, Vcpuctl
from e2e.lines import Lines

pytestmark = [pytest.mark.e2e]

DEBS = ROOT / "build" / "deb"
PACKAGES = (
    *("systemd-sysv", "udev", "linux-image-cloud-amd64", "initramfs-tools", "zstd"),
    *("python3-grpcio", "python3-protobuf", "python3-pyudev", "python3-structlog", "python3-rich"),
)
#: What a user does by hand is done by a service: unpack what was copied here, follow README, say how it went.
UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
WorkingDirectory=/root
ExecStart=/bin/sh -c 'tar -xf /dev/vdb && sh -e ./steps; echo "the guest steps ended with $?"'
"""
ENABLE = 'ln -s ../steps.service "$1/etc/systemd/system/multi-user.target.wants/steps.service"'
#: In namespaces, so that /run/vm1 is this test's own; the host's root (a plain directory) shares it.
ENTER = 'mount -t tmpfs none /run && mkdir -p /run/vm1 "$0/run/vm1" && mount --bind /run/vm1 "$0/run/vm1" && exec "$@"'


STEPS_ENDED = re.compile(r"the guest steps ended with|Failed to start .*steps\.service")


def block(name: str) -> str:
    """The commands of README that carry this mark."""
    found = re.findall(rf"<!-- first-steps: {name} -->\n```sh\n(.*?)```\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(found) == 1, f"README has {len(found)} blocks marked {name}"
    return str(found[0])


def qemu_lines() -> list[str]:
    return shlex.split(block("qemu"))


@contextmanager
def debian() -> Iterator[Path]:
    """A directory with a fresh root: ``root.tar`` as a whole, and ``root.img``, ``vmlinuz``, ``initrd`` to boot it."""

    def build(folder: Path) -> None:
        (folder / "steps.service").write_text(UNIT)
        options = [f"--customize-hook=copy-in '{folder}/steps.service' /etc/systemd/system"]
        options += [f"--customize-hook={ENABLE}", '--customize-hook=rm -rf "$1"/var/cache/apt/archives/*.deb']
        host.bootstrap(["bookworm"], PACKAGES, folder / "root.tar", variant="minbase", options=options)
        script = (
            'mkdir tree && tar -C tree --exclude="./dev/*" -xf root.tar && mke2fs -q -t ext4 -d tree root.img 2G'
            " && cp tree/boot/vmlinuz-* vmlinuz && cp tree/boot/initrd.img-* initrd && rm -r tree"
        )
        host.run([*([] if os.geteuid() == 0 else ["fakeroot"]), "sh", "-c", script], cwd=folder)

    with Cache().entry("first-steps", digest(1, PACKAGES, UNIT, ENABLE), build) as entry:
        yield entry.path


def copied_into_guest(target: Path) -> None:
    """What the user brings along: the packages, and README's commands."""
    with tarfile.open(target, "w") as tar:
        for deb in DEBS.glob("*.deb"):
            tar.add(deb, deb.name)
        steps = target.with_suffix(".sh")
        # A user takes a moment to get from the guest to the host; under TCG the agent needs seconds for its imports.
        steps.write_text(block("guest") + "until systemctl --quiet is-active vcpud; do sleep 1; done\n")
        tar.add(steps, "steps")


def booted(image: Path, copied: Path) -> Sequence[str]:
    """A machine as anybody might have it, with README's lines added."""
    argv = ["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "1024", "-machine", "q35", "-accel", "tcg"]
    # without a login prompt, which would take the terminal from the steps
    append = "root=/dev/vda rw console=ttyS0 systemd.getty_auto=0"
    argv += ["-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd", "-append", append]
    argv += ["-drive", f"file={image}/root.img,format=raw,if=virtio,snapshot=on"]
    argv += ["-drive", f"file={copied},format=raw,if=virtio,readonly=on"]
    return [*argv, *qemu_lines()]


def test_the_lines_for_qemu_are_what_the_commands_need(tmp_path: Path) -> None:
    """The quick part, without a guest: QEMU takes the lines, and doctor misses nothing of the host's side."""
    with tempfile.TemporaryDirectory(prefix="vf", dir="/tmp") as short, qemu.find(Cache(), qemu.STANDARD) as binary:
        lines = [line.replace("/run/vm1/", f"{short}/") for line in qemu_lines()]
        assert lines != qemu_lines()
        argv = [*binary.system, "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "64"]
        argv += ["-qmp", "stdio", *lines]
        process = subprocess.Popen(
            argv, env={**os.environ, **binary.env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = Lines(process)
        try:
            said.until(lambda line: "QMP" in line)  # its monitors are there
            commands = [line.split() for line in block("host").splitlines() if line.startswith("vcpuctl ")]
            assert [command[3] for command in commands] == ["doctor", "list", "plug", "scale"]
            for command in commands:
                words = [word.replace("/run/vm1/", f"{short}/") for word in command[1:]]
                argv = [str(VCPUCTL), "-o", "json", *words]
                ended = Vcpuctl.wait(
                    subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), 60
                )
                assert ended.status == {"doctor": 1, "list": 0, "plug": 5, "scale": 5}[command[3]], ended.stdout
                if command[3] == "doctor":
                    problems = [f["code"] for f in ended.json["findings"] if f["level"] == "problem"]
                    assert problems == ["guest-booting"]
            with closing(Qmp(Path(short, "qmp.sock"))) as oracle:
                assert len(oracle.execute("query-hotpluggable-cpus")) == 16
        finally:
            process.kill()
            said.finish()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_quick_start_works_as_written(tmp_path: Path) -> None:
    alone = [] if os.geteuid() == 0 else ["--map-root-user"]
    with debian() as image, qemu.find(Cache(), qemu.STANDARD) as binary:
        tree, copied = tmp_path / "host", tmp_path / "copied.tar"
        tree.mkdir()
        host.run([*([] if not alone else ["unshare", *alone]), "tar", "-C", str(tree), "-xf", f"{image}/root.tar"])
        for deb in DEBS.glob("*.deb"):
            (tree / "root" / deb.name).write_bytes(deb.read_bytes())
        copied_into_guest(copied)

        argv = ["unshare", *alone, "--mount", "sh", "-e", "-c", ENTER, str(tree), *binary.system]
        vm = subprocess.Popen(
            [*argv, *booted(image, copied)], env={**os.environ, **binary.env}, stdout=subprocess.PIPE, text=True
        )
        console = Lines(vm)
        try:
            ended = console.until(lambda line: bool(STEPS_ENDED.search(line)), 600)
            assert ended.endswith("with 0"), console.seen[-60:]
            inside = [
                "nsenter",
                *(["--user", "--preserve-credentials"] if alone else []),
                "--mount",
                f"--target={vm.pid}",
            ]
            steps = ["chroot", str(tree), "env", "-C", "/root", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
            followed = subprocess.run(
                [*inside, *steps, "sh", "-exc", block("host")], capture_output=True, text=True, timeout=600, check=False
            )
            assert followed.returncode == 0, followed.stdout + followed.stderr
            assert "plug: done" in followed.stdout
            assert "scale: done" in followed.stdout
            # what the guest's kernel said of it
            for number in (1, 2, 3):
                console.until(lambda line, n=number: f"Processor {n} APIC" in line)  # type: ignore[misc]
            gone = {console.until(lambda line: "is now offline" in line).split("CPU ")[1].split()[0] for _ in range(3)}
            assert gone == {"1", "2", "3"}
        finally:
            vm.kill()
            console.finish()
