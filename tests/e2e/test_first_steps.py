# SPDX-License-Identifier: Apache-2.0
"""README's first steps, word by word, on stock releases of Debian that the lab's runner knows nothing of.

Guest and host are fresh roots with apt, and the host's QEMU is its own. Each has the packages' dependencies
already (there is no network here), and nothing else of ours. The commands are taken out of README.md and not changed in
any way: what they name below /run is in a mount namespace of its own.
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
from dataclasses import dataclass
from pathlib import Path

import pytest
from kit.e2e.lines import Lines
from kit.e2e.machine import ROOT, VCPUCTL, Vcpuctl
from kit.lab import Cache, Qmp, host, qemu
from kit.lab.cache import digest
from kit.lab.pythons import newest_python

pytestmark = [pytest.mark.e2e]

DEBS = ROOT / "build" / "deb"
PACKAGES = (
    *("systemd-sysv", "udev", "initramfs-tools", "zstd", "qemu-system-x86"),
    *("python3-grpcio", "python3-protobuf", "python3-pyudev", "python3-structlog", "python3-rich"),
)


@dataclass(frozen=True)
class Debian:
    """A release, its kernel in the guest, and the blocks of README with the lines that its QEMU gets."""

    suite: str
    kernel: str
    lines: tuple[str, ...]


# without KVM, whether there is one here or not: the lines for a guest that needs it are tried too
RELEASES = (
    Debian("bookworm", "linux-image-cloud-amd64", ("qemu",)),
    Debian("trixie", "linux-image-amd64", ("qemu", "without-kvm")),
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
#: In namespaces, so that /run is this test's own, and the host's root, a plain directory, has what a root needs.
ENTER = """tree=$0; mount -t tmpfs none /run; mount --rbind /run "$tree/run"
for name in dev proc sys; do mount --rbind /$name "$tree/$name"; done
mount --bind "$1" "$tree/mnt"; shift
exec chroot "$tree" "$@"
"""
ENVIRONMENT = ("env", "-C", "/root/vcpuctl", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
STEPS_ENDED = re.compile(r"the guest steps ended with|Failed to start .*steps\.service")


def block(name: str) -> str:
    """The commands of README that carry this mark."""
    found = re.findall(rf"<!-- first-steps: {name} -->\n```sh\n(.*?)```\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(found) == 1, f"README has {len(found)} blocks marked {name}"
    return str(found[0])


def qemu_lines(*names: str) -> list[str]:
    return [word for name in names for word in shlex.split(block(name))]


@contextmanager
def fresh(debian: Debian) -> Iterator[Path]:
    """A directory with a fresh root: ``root.tar`` as a whole, and ``root.img``, ``vmlinuz``, ``initrd`` to boot it."""
    packages = (*PACKAGES, debian.kernel)

    def build(folder: Path) -> None:
        (folder / "steps.service").write_text(UNIT)
        options = [f"--customize-hook=copy-in '{folder}/steps.service' /etc/systemd/system"]
        options += [f"--customize-hook={ENABLE}", '--customize-hook=rm -rf "$1"/var/cache/apt/archives/*.deb']
        tarball = folder / "root.tar"
        host.bootstrap([debian.suite], packages, tarball, variant="minbase", options=options, timeout=1800.0)
        script = (
            'mkdir tree && tar -C tree --exclude="./dev/*" -xf root.tar && mke2fs -q -t ext4 -d tree root.img 3G'
            " && cp tree/boot/vmlinuz-* vmlinuz && cp tree/boot/initrd.img-* initrd && rm -r tree"
        )
        host.run([*([] if os.geteuid() == 0 else ["fakeroot"]), "sh", "-c", script], cwd=folder)

    with Cache().entry(f"first-steps-{debian.suite}", digest(2, packages, UNIT, ENABLE), build) as entry:
        yield entry.path


def copied_into_guest(target: Path) -> None:
    """What the user brings along: the packages, and README's commands."""
    with tarfile.open(target, "w") as tar:
        for deb in DEBS.glob("*.deb"):
            tar.add(deb, deb.name)
        steps = target.with_suffix(".sh")
        # A user takes a moment to get from the guest to the host; under TCG the agent needs seconds for its imports.
        until = "until systemctl --quiet is-active vcpud; do sleep 1; done\n"
        # the only eyes that there are here
        journal = "systemd-run --quiet sh -c 'journalctl -f -u vcpud -o short-monotonic >/dev/ttyS0'\n"
        steps.write_text(block("guest") + until + journal)
        tar.add(steps, "steps")


def booted(debian: Debian) -> Sequence[str]:
    """A machine as anybody might have it, with README's lines added; its files are at /mnt and in /root."""
    argv = ["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "1024", "-machine", "q35", "-accel", "tcg"]
    # without a login prompt, which would take the terminal from the steps
    append = "root=/dev/vda rw console=ttyS0 systemd.getty_auto=0"
    argv += ["-kernel", "/mnt/vmlinuz", "-initrd", "/mnt/initrd", "-append", append]
    argv += ["-drive", "file=/mnt/root.img,format=raw,if=virtio,snapshot=on"]
    argv += ["-drive", "file=/root/copied.tar,format=raw,if=virtio,readonly=on"]
    return [*argv, *qemu_lines(*debian.lines)]


def short_use(vcpuctl: Path) -> None:
    """README's commands without a guest: QEMU takes its lines, and doctor misses nothing of the host's side."""
    with tempfile.TemporaryDirectory(prefix="vf", dir="/tmp") as short, qemu.find(Cache(), qemu.STANDARD) as binary:
        lines = [line.replace("/run/vm1/", f"{short}/") for line in qemu_lines("qemu", "without-kvm")]
        assert lines != qemu_lines("qemu", "without-kvm")
        argv = [*binary.system, "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "64"]
        argv += ["-qmp", "stdio", *lines]
        process = subprocess.Popen(
            argv, env={**os.environ, **binary.env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = Lines(process)
        try:
            said.until(lambda line: "QMP" in line)  # its monitors are there
            commands = [line.split() for line in block("use").splitlines() if line.startswith("vcpuctl ")]
            assert [command[3] for command in commands] == ["doctor", "list", "plug", "scale"]
            for command in commands:
                words = [word.replace("/run/vm1/", f"{short}/") for word in command[1:]]
                argv = [str(vcpuctl), "-o", "json", "--timeout", "2", *words]
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


def test_the_lines_for_qemu_are_what_the_commands_need() -> None:
    short_use(VCPUCTL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pip_gives_the_same_command_on_the_newest_python(tmp_path: Path) -> None:
    bin_of_python3 = tmp_path / "bin"
    bin_of_python3.mkdir()
    newest = newest_python()
    (bin_of_python3 / "python3").symlink_to(newest)
    home = tmp_path / "home"
    home.mkdir()
    # pip as it is configured here, whose files may be the user's
    environment = {**os.environ, "PATH": f"{bin_of_python3}:{os.environ['PATH']}", "HOME": str(home)}
    environment.setdefault("PIP_CONFIG_FILE", str(Path.home() / ".config/pip/pip.conf"))
    script = block("pip") + "command -v vcpuctl; vcpuctl --version\n"
    done = subprocess.run(
        ["sh", "-ec", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2] == f"{home}/vcpuctl/bin/vcpuctl"
    short_use(home / "vcpuctl/bin/vcpuctl")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("debian", [pytest.param(debian, id=debian.suite) for debian in RELEASES])
def test_the_first_steps_work_as_written(debian: Debian, tmp_path: Path) -> None:
    alone = [] if os.geteuid() == 0 else ["--map-root-user"]
    with fresh(debian) as image:
        tree = tmp_path / "host"
        tree.mkdir()
        untar = ["tar", "-C", str(tree), "--exclude=./dev/*", "-xf", f"{image}/root.tar"]
        host.run([*([] if not alone else ["unshare", *alone]), *untar])
        packages = tree / "root/vcpuctl/build/deb"
        packages.mkdir(parents=True)
        for deb in DEBS.glob("*.deb"):
            (packages / deb.name).write_bytes(deb.read_bytes())
        copied_into_guest(tree / "root/copied.tar")

        start = ["sh", "-ec", block("directory") + 'exec qemu-system-x86_64 "$@"', "sh", *booted(debian)]
        argv = ["unshare", *alone, "--mount", "sh", "-ec", ENTER, str(tree), str(image), *ENVIRONMENT, *start]
        vm = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        console = Lines(vm)
        try:
            ended = console.until(lambda line: bool(STEPS_ENDED.search(line)), 1500)
            assert ended.endswith("with 0"), console.seen[-60:]
            inside = ["nsenter", *(["--user", "--preserve-credentials"] if alone else []), "--mount"]
            inside += [f"--target={vm.pid}", "chroot", str(tree), *ENVIRONMENT]
            script = block("host") + block("use")
            followed = subprocess.run(
                [*inside, "sh", "-exc", script], capture_output=True, text=True, timeout=900, check=False
            )
            assert followed.returncode == 0, followed.stdout + followed.stderr + "\n".join(console.left()[-60:])
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
