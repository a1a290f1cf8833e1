# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  (a module for the findings' scripts, of no package)
"""A libvirtd of an unpacked Debian root, in namespaces of its own; root is needed. Its domains' guests never run."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET

from qmp import LIMIT, WORK, until

_CONF = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/sh\n",
    "etc/group": "root:x:0:\nlibvirt-qemu:x:64055:\nkvm:x:104:\n",
    "etc/hosts": f"127.0.0.1 localhost {os.uname().nodename}\n",
    "etc/libvirt/qemu.conf": 'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\n'
    'security_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = "file"\n',
    "etc/libvirt/libvirtd.conf": 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n',
}
#: A host without KVM: its devices are the least that programs need. The shell is its init: a QEMU that has ended would
#: else stay a zombie, and libvirt waits 40 s for one to go.
_ENTER = """
mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" && mount -t tmpfs -o mode=755 dev "$1/dev" &&
for one in null zero full random urandom; do touch "$1/dev/$one" && mount --bind "/dev/$one" "$1/dev/$one"; done &&
mkdir "$1/dev/pts" "$1/dev/shm" && mount -t devpts -o newinstance,ptmxmode=666 pts "$1/dev/pts" &&
ln -s pts/ptmx "$1/dev/ptmx" && chroot "$1" libvirtd & wait
"""
#: A q35 that may have four vCPUs and starts with one.
DOMAIN = """
<domain type='qemu'><name>d</name><memory unit='MiB'>64</memory><vcpu current='1'>4</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<cpu mode='custom'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>
"""


class Libvirtd:
    """``with Libvirtd("root") as libvirtd``. What it started ends with it."""

    def __init__(self, root: str) -> None:
        self.root = os.path.join(WORK, root)
        for name, text in _CONF.items():
            path = os.path.join(self.root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        for name in ("proc", "dev", "sys", "run", "tmp", "var/lib", "var/log", "var/cache", "var/tmp", "root"):
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        if not os.path.islink(os.path.join(self.root, "var/run")):
            os.symlink("../run", os.path.join(self.root, "var/run"))
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Libvirtd:
        self.start()
        with open(os.path.join(self.root, "root/d.xml"), "w", encoding="utf-8") as file:
            file.write(DOMAIN)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", self.root]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.virsh("list").returncode == 0, "libvirtd answers", 2 * LIMIT)

    def stop(self) -> None:
        """End it, and with it its domains."""
        self._process.kill()
        self._process.wait()

    def virsh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Give a command to virsh."""
        argv = ["chroot", self.root, "virsh", "--quiet", *words]
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(argv, capture_output=True, text=True, timeout=4 * LIMIT, check=False, env=environment)

    def does(self, *words: str) -> str:
        """Give virsh a command that must succeed; what it says."""
        ended = self.virsh(*words)
        if ended.returncode:
            raise SystemExit(f"virsh {' '.join(words)}: {ended.stderr.strip()}")
        return ended.stdout.strip()

    def refuses(self, *words: str) -> str:
        """Give virsh a command; its error, or "none"."""
        return self.virsh(*words).stderr.strip().removeprefix("error: ").replace("\nerror: ", "; ") or "none"

    def ends(self) -> None:
        """End the domain's QEMU, as a guest that is switched off does, and wait until libvirt knows."""
        self.virsh("qemu-monitor-command", "--hmp", "d", "quit")  # QEMU may be gone before it has answered
        until(lambda: self.does("domstate", "d") == "shut off", "the domain is off", LIMIT)

    def vcpus(self) -> dict[int, str]:
        """The vCPUs that the running domain's list has, each with what libvirt calls it: hotpluggable or not."""
        listed = ET.fromstring(self.does("dumpxml", "d")).findall("vcpus/vcpu")
        return {int(vcpu.attrib["id"]): vcpu.attrib["hotpluggable"] for vcpu in listed if vcpu.get("enabled") == "yes"}
