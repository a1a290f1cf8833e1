# SPDX-License-Identifier: Apache-2.0
"""The programs of a fake guest: a /proc and a cgroupfs that behave like the kernel's, on files alone.

Whoever has the folder sees the same: the test that makes them, the fake kernel that reacts to its CPUs, vcpud. Quirks
kept, by kernel (what was seen on Linux 6.1, 6.12 and 7.2):

- a thread that is awake when its last CPU goes gets all possible CPUs for good; one that sleeps keeps its mask, and
  sched_getaffinity gives it no CPU meanwhile;
- `forgets` (6.1): whatever CPU comes or goes, every thread in a child cpuset gets the CPUs of that;
- a cpuset whose CPUs are all gone has its parent's, until one is back;
- a partition that loses its last CPU is invalid if there are tasks in it: 6.1 says why, newer kernels do not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vcpu_guest.core import cpulist
from vcpu_guest.kernel.tasks import Tasks
from vcpu_guest.kernel.units import Units

_KTHREAD = 0x00200000
#: What a new cgroup has.
_FILES = {
    "cpuset.cpus": "",
    "cpuset.cpus.partition": "member",
    "cpu.max": "max 100000",
    "cgroup.subtree_control": "",
    "cgroup.type": "domain",
    "cgroup.events": "populated 1\nfrozen 0",
}


@dataclass(frozen=True)
class Task:
    """A thread that a test has made."""

    pid: int
    tid: int
    folder: Path

    @property
    def mask(self) -> str:
        """Its Cpus_allowed_list."""
        return _field(self.folder)

    def wake(self) -> None:
        """From now on it is awake whenever a CPU goes."""
        stat = self.folder / "stat"
        stat.write_bytes(stat.read_bytes().replace(b") S ", b") R "))

    def end(self) -> None:
        """It ends."""
        for name in ("stat", "status", "cgroup"):
            (self.folder / name).unlink()
        self.folder.rmdir()


def _field(folder: Path) -> str:
    text = (folder / "status").read_text(errors="replace")
    return text.rpartition("Cpus_allowed_list:\t")[2].partition("\n")[0].strip()


class FakePrograms:
    """The programs of the guest whose /sys is `folder`/sys."""

    def __init__(self, folder: Path, *, possible: int = 16, forgets: bool = False, says_why: bool = False) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        self.cgroupfs = folder / "sys/fs/cgroup"
        self.units = folder / "units"
        self._possible = possible
        for path in (self.proc, self.cgroupfs, self.units):
            path.mkdir(parents=True, exist_ok=True)
        (self.proc / "quirks").write_text(f"{possible} {int(forgets)} {int(says_why)}")
        self._put(self.cgroupfs / "cgroup.subtree_control", "memory pids")
        self._put(self.cgroupfs / "cpuset.cpus.effective", cpulist.render(self.online))

    @property
    def online(self) -> frozenset[int]:
        """The CPUs that are online."""
        return _online(self.folder)

    def task(
        self,
        pid: int,
        mask: str = "",
        *,
        tid: int | None = None,
        comm: bytes = b"worker",
        cgroup: str = "/",
        awake: bool = False,
        kernel: bool = False,
        policy: int = 0,
        started: int = 100,
    ) -> Task:
        """Start a thread; without a mask it has all possible CPUs."""
        tid = pid if tid is None else tid
        folder = self.proc / f"{pid}/task/{tid}"
        folder.mkdir(parents=True)
        flags = _KTHREAD if kernel else 0
        fields = [b"R" if awake else b"S", *[b"0"] * 5, b"%d" % flags, *[b"0"] * 12, b"%d" % started, *[b"0"] * 18]
        fields += [b"%d" % policy, b"0"]
        (folder / "stat").write_bytes(b"%d (%s) %s\n" % (tid, comm, b" ".join(fields)))
        (folder / "cgroup").write_bytes(b"0::%s\n" % os.fsencode(cgroup))
        self._put(folder / "status", _status(mask or f"0-{self._possible - 1}"))
        return Task(pid, tid, folder)

    def cgroup(
        self,
        path: str,
        *,
        cpus: str = "",
        partition: str = "member",
        quota: str = "max 100000",
        populated: bool = True,
        threaded: bool = False,
    ) -> Path:
        """Make a cgroup with the controllers of CPUs. `threaded`: threads of its parent's processes may be in it."""
        parent = self.cgroupfs
        for part in path.strip("/").split("/"):
            self._put(parent / "cgroup.subtree_control", "cpuset cpu memory pids")
            parent = parent / part
            if not parent.exists():
                parent.mkdir()
                for name, text in _FILES.items():
                    self._put(parent / name, text)
        for name, text in {"cpuset.cpus": cpus, "cpuset.cpus.partition": partition, "cpu.max": quota}.items():
            self._put(parent / name, text)
        self._put(parent / "cgroup.events", f"populated {int(populated)}\nfrozen 0")
        if threaded:
            self._put(parent / "cgroup.type", "threaded")
            above = parent.parent / "cgroup.type"
            if above.exists() and above.read_text().strip() == "domain":  # the root of all has none
                self._put(above, "domain threaded")
        react(self.folder)
        return parent

    def unit(self, name: str, text: str) -> None:
        """Write a unit's file, or with "NAME.d/x.conf" a drop-in."""
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        self._put(path, text)

    def _put(self, path: Path, text: str) -> None:
        _put(path, text)


def tasks_of(folder: Path) -> Tasks:
    """What vcpud reads of such a folder's threads. It can set masks."""
    proc = folder / "proc"

    def where(tid: int) -> Path:
        found = next(proc.glob(f"[0-9]*/task/{tid}"), None)
        if found is None:
            raise ProcessLookupError(tid)
        return found

    def affinity(tid: int) -> set[int]:
        return set(cpulist.parse(_field(where(tid))) & _online(folder))

    def policy(tid: int) -> int:
        return int((where(tid) / "stat").read_bytes().split()[-2])

    def pin(tid: int, mask: frozenset[int]) -> None:
        _put(where(tid) / "status", _status(cpulist.render(mask)))

    return Tasks(str(proc), affinity, policy, pin)


def units_of(folder: Path) -> Units:
    """What vcpud reads of its units."""
    return Units((str(folder / "units"),))


def channels_of(folder: Path, name: str) -> tuple[int, int]:
    """What a network device says: "used most" in a file of that name."""
    used, most = (folder / "channels" / name).read_text().split()
    return int(used), int(most)


def network(folder: Path, name: str, used: int, most: int) -> None:
    """Make a virtio network device."""
    device = folder / f"sys/devices/{name}"
    device.mkdir(parents=True)
    (folder / "sys/bus/virtio_net").mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(folder / "sys/bus/virtio_net")
    (device / "net").mkdir()
    (device / "net/device").symlink_to(device)
    (folder / "sys/class/net").mkdir(parents=True, exist_ok=True)
    (folder / f"sys/class/net/{name}").symlink_to(device / "net")
    (folder / "channels").mkdir(exist_ok=True)
    (folder / f"channels/{name}").write_text(f"{used} {most}")


def react(folder: Path) -> None:
    """Do what the kernel does when CPUs have come or gone. Nothing, if the folder has no programs."""
    quirks = folder / "proc/quirks"
    if not quirks.exists():
        return
    possible, forgets, says_why = map(int, quirks.read_text().split())
    online = _online(folder)
    root = folder / "sys/fs/cgroup"
    _effective(root, online, says_why=bool(says_why))
    for status in (folder / "proc").glob("[0-9]*/task/[0-9]*/status"):
        task = status.parent
        mask = cpulist.parse(_field(task))
        cpuset = root / (task / "cgroup").read_text(errors="surrogateescape").strip().removeprefix("0::/")
        effective = cpuset / "cpuset.cpus.effective"
        if forgets and cpuset != root and effective.exists():
            _put(status, _status(effective.read_text().strip()))
        elif not mask & online and b") R " in (task / "stat").read_bytes():
            _put(status, _status(f"0-{possible - 1}"))


def _effective(group: Path, parents: frozenset[int], *, says_why: bool) -> None:
    for child in sorted(path for path in group.iterdir() if path.is_dir()):
        wished = child / "cpuset.cpus"
        if not wished.exists():
            continue
        own = cpulist.parse(wished.read_text()) & parents
        state = child / "cpuset.cpus.partition"
        kind = state.read_text().split()[0]
        if kind != "member" and "populated 1" in (child / "cgroup.events").read_text():
            lost = " invalid" + (" (No cpu available due to hotplug)" if says_why else "")
            _put(state, kind if own else kind + lost)
        _put(child / "cpuset.cpus.effective", cpulist.render(own or parents))
        _effective(child, own or parents, says_why=says_why)
    partitions = [path for path in group.iterdir() if path.is_dir() and _valid(path)]
    taken = frozenset[int]().union(*(cpulist.parse((p / "cpuset.cpus.effective").read_text()) for p in partitions))
    _put(group / "cpuset.cpus.effective", cpulist.render(parents - taken))


def _valid(group: Path) -> bool:
    state = group / "cpuset.cpus.partition"
    return state.exists() and state.read_text().strip() in ("root", "isolated")


def _online(folder: Path) -> frozenset[int]:
    return cpulist.parse((folder / "sys/devices/system/cpu/online").read_text())


def _status(mask: str) -> str:
    return f"Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{mask}\nMems_allowed_list:\t0"


def _put(path: Path, text: str) -> None:
    staging = path.with_name(f".{path.name}.new")
    staging.write_text(text + "\n")
    os.replace(staging, path)
