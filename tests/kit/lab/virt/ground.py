# SPDX-License-Identifier: Apache-2.0
"""A root of its own in namespaces of its own: what makes one machine look like several hosts.

The root is an overlay on a cached one, so that any number of hosts share it and none changes it. Processes, mounts,
network and host name are the host's own. Its first process ends with this one, however that ends, and with it go, by
the kernel, all other processes of the host, its mounts and its link.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import IO

from kit.lab import host, process
from kit.lab.errors import CommandError, LabError

#: Runs in the new namespaces, with the old root: $DIR is the host's directory, $LOWER the cached layers.
#: From the old /proc the shell learns the id by which the old namespaces know it.
_SET_UP = """
set -eu
root=$DIR/root
mkdir -p "$root" "$DIR/upper" "$DIR/work" "$DIR/run" "$DIR/log" "$DIR/domains"
mount -t overlay lab -o "lowerdir=$LOWER,upperdir=$DIR/upper,workdir=$DIR/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs run "$root/run"
mkdir -p "$root/run/lock" "$root/run/sshd" "$root/run/libvirt" "$root/var/log/libvirt" "$root$OWN"
mount --bind "$DIR/run" "$root/run/libvirt"
mount --bind "$DIR/log" "$root/var/log/libvirt"
mount --bind "$DIR/domains" "$root$OWN"
for path in "$@"; do
    mkdir -p "$root$path"
    mount --bind "$path" "$root$path"
done
hostname "$NAME"
ip link set lo up
read -r pid rest </proc/self/stat
echo "lab-ready $pid" >&2
exec chroot "$root" env --ignore-signal=CHLD sleep infinity
"""
#: Where a host has its domains' own files: the same in all hosts, so that a domain finds them after it has moved.
OWN = Path("/run/lab")
_ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8")
#: Networks for documentation (RFC 5737), which no other host has an address of. Links are made in the first that this
#: machine has no part in.
_NETWORKS = tuple(map(IPv4Network, ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24")))
#: The network between two hosts, which nobody else sees.
_BETWEEN = IPv4Network("203.0.113.0/30")
#: The names of the links' interfaces on this machine begin so.
_LINK = "vcpulab"


class Ground:
    """The namespaces and the root. ``close`` ends all that runs in them; use it as a context manager."""

    def __init__(self, layers: Sequence[Path], folder: Path, name: str, binds: Sequence[Path]) -> None:
        """Make them: a host called ``name`` on a root of those layers, the upper first, its own files in ``folder``.

        ``binds`` are directories that the host has at the same paths, ``folder`` or one above it among them.
        Raises LabError.
        """
        self.folder = folder
        environment = {"DIR": str(folder), "LOWER": ":".join(map(str, layers)), "NAME": name, "OWN": str(OWN)}
        namespaces = [f"--{kind}" for kind in ("mount", "pid", "net", "uts", "ipc")]
        paths = [str(path) for path in binds]
        self._init = process.start(
            ["unshare", *namespaces, "--fork", "--kill-child=KILL", "sh", "-c", _SET_UP, "sh", *paths], environment, []
        )
        assert self._init.stderr is not None
        self._words = _Words(self._init.stderr)
        #: The host's first process, as this machine numbers it.
        self.pid = self._words.pid()
        self._end = os.pidfd_open(self.pid)
        self._begun: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        """End all processes of the host: when its first one has ended, the kernel has ended them all."""
        process.end(self._init)
        select.select([self._end], [], [])
        os.close(self._end)
        for begun in self._begun:
            begun.wait()

    def path(self, inside: str) -> Path:
        """Where a file of the host, of that absolute path, is found from outside while the host runs."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def outside(self, pid: int) -> int:
        """Return how this machine numbers the host's process ``pid``. Raises LabError if there is none."""
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if (status.parent / "ns/pid").readlink() != own:
                    continue
                numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()
            except OSError:
                continue  # it has just ended
            if int(numbers[-1]) == pid:
                return int(numbers[1])
        raise LabError(f"the host has no process {pid}")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the words that run a program in the host."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd"]
        return [*enter, "--", "env", "-i", *_ENVIRONMENT, *argv]

    def run(self, argv: Sequence[str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a program in the host to its end. Raises CommandError if that takes too long."""
        try:
            return subprocess.run(
                self.command(argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{shlex.join(argv)} took longer than {timeout:.0f} s") from error

    def begin(self, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> Begun:
        """Start a program in the host and leave it running; what it says goes to the end of the file ``log``."""
        words = [*(f"{name}={value}" for name, value in environment.items()), *argv]
        with log.open("ab") as output:
            begun = subprocess.Popen(
                self.command(["env", *words]), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._begun.append(begun)
        return Begun(begun)

    def link(self) -> str:
        """Join the host's network to this machine's by a pair of interfaces; return the host's address.

        The link ends with the host. What stays is a route by which nothing that is meant for hosts of the lab leaves
        this machine, when they are gone. Raises LabError where all links are taken.
        """
        network = _free_network()
        host.run(["ip", "route", "replace", "unreachable", str(network)])
        for number, subnet in enumerate(network.subnets(new_prefix=30)):
            name = f"{_LINK}{number}"
            try:
                host.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)])
            except CommandError as error:
                if "File exists" not in str(error):
                    raise
                continue
            ours, theirs = subnet.hosts()
            host.run(["ip", "address", "add", f"{ours}/30", "dev", name])
            host.run(["ip", "link", "set", name, "up"])
            self._ip("address", "add", f"{theirs}/30", "dev", "eth0")
            self.cut(False)
            return str(theirs)
        raise LabError("all links to hosts of the lab are taken: `ip link show type veth`")

    def cut(self, cut: bool = True) -> None:
        """Cut the link, so that packets are lost and no side is told, or mend it."""
        # at this end: at the other one it would take this machine's route to the host away
        self._ip("link", "set", "eth0", "down" if cut else "up")

    def join(self, other: Ground) -> tuple[str, str]:
        """Join two hosts by a pair of interfaces; return the address of this one on that network, and the other's.

        A host can be joined to one other.
        """
        ours, theirs = _BETWEEN.hosts()
        name = "eth1"
        self._ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", str(other.pid))
        for ground, address in ((self, ours), (other, theirs)):
            ground._ip("address", "add", f"{address}/30", "dev", name)
            ground._ip("link", "set", name, "up")
        return str(ours), str(theirs)

    def _ip(self, *words: str) -> None:
        """Run this machine's ip(8) in the host's network."""
        host.run(["nsenter", f"--target={self.pid}", "--net", "ip", *words])


class Begun:
    """A program that was started in a host."""

    def __init__(self, entered: subprocess.Popen[bytes]) -> None:
        self._entered = entered

    @property
    def pid(self) -> int:
        """Its process, as this machine numbers it. Raises LabError if it is gone."""
        children = Path(f"/proc/{self._entered.pid}/task/{self._entered.pid}/children")
        pids = children.read_text().split() if children.exists() else []
        if len(pids) != 1:
            raise LabError(f"the program that was started in the host is gone (status {self._entered.poll()})")
        return int(pids[0])

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._entered.poll()

    def end(self) -> int:
        """Return a new file descriptor that is readable once it has ended (pidfd_open(2))."""
        return os.pidfd_open(self._entered.pid)

    def wait(self, timeout: float) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        return self._entered.wait(timeout)


def _free_network() -> IPv4Network:
    used = [
        IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for interface in json.loads(host.run(["ip", "-json", "-4", "address"]))
        if not interface["ifname"].startswith(_LINK)
        for address in interface["addr_info"]
    ]
    for network in _NETWORKS:
        if not any(network.overlaps(other) for other in used):
            return network
    raise LabError(f"this machine has addresses in all of {', '.join(map(str, _NETWORKS))}")


class _Words:
    """What the first process says until it has set up everything, or has failed; read to the end, so it never waits."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._said: deque[str] = deque(maxlen=20)
        self._pid = 0
        self._known = threading.Event()
        threading.Thread(target=self._read, args=(stream,), name="lab ground", daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                word, _, rest = line.decode(errors="replace").strip().partition(" ")
                if word == "lab-ready":
                    self._pid = int(rest)
                    self._known.set()
                else:
                    self._said.append(f"{word} {rest}")
        self._known.set()

    def pid(self) -> int:
        """The first process, as this machine numbers it. Raises LabError with its words."""
        self._known.wait(60.0)
        if not self._pid:
            said = "\n".join(self._said)
            raise LabError(f"a host of the lab could not be set up (it takes root, overlayfs and namespaces):\n{said}")
        return self._pid
