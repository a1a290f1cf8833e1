# SPDX-License-Identifier: Apache-2.0
"""Reads the cgroups' files about CPUs, of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).

A cgroup has files of a controller if its parent's cgroup.subtree_control names that, so what has no controller of
CPUs is not walked. Debian's guests start without: then the root's one file is all that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vcpu_guest.core import cpulist
from vcpu_guest.core.workload import quota_of
from vcpu_guest.kernel.sysfs import Sysfs

_ROOT = "fs/cgroup"
_CONTROL = "cgroup.subtree_control"
#: Cgroups that are looked at for partitions where the kernel has no sum of them.
_MOST = 1024


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One cgroup below the root, by its path ("/system.slice"), not escaped. A file that is not there is ""."""

    path: str
    cpus: str
    effective: str
    partition: str
    quota: float | None


class Cgroups:
    """The cgroups of the machine whose /sys this is."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def _read(self, path: str, name: str) -> str:
        try:
            return self._sysfs.read(f"{_ROOT}{path}/{name}") or ""
        except OSError:  # the cgroup has gone meanwhile
            return ""

    @property
    def unified(self) -> bool:
        """Say whether there is cgroup v2, and so anything that can be told."""
        return self._sysfs.exists(f"{_ROOT}/{_CONTROL}")

    def has_cpusets(self) -> bool:
        """Say whether any cgroup below the root can have a cpuset."""
        return "cpuset" in self._read("", _CONTROL).split()

    def root_effective(self) -> str:
        """Return the CPUs that no partition has taken from the root; "" where there is no such file."""
        return self._read("", "cpuset.cpus.effective")

    def left_to_root(self) -> frozenset[int] | None:
        """Return the CPUs of root_effective; None if they cannot be told."""
        return _parsed(self.root_effective()) or None

    def effective_of(self, path: str) -> frozenset[int] | None:
        """Return the CPUs that a thread in this cgroup gets without a mask of its own; None if no cpuset says.

        None also for the root: what is there is bound by no cpuset.
        """
        parts = path.strip("/").split("/") if path.strip("/") else []
        for length in range(len(parts), 0, -1):
            text = self._read("/" + "/".join(parts[:length]), "cpuset.cpus.effective")
            if text:
                return _parsed(text)
        return None

    def parts_threads(self, path: str) -> bool:
        """Say whether a process with a thread in this cgroup may have others in other cgroups: it is threaded.

        The root of all has no cgroup.type, and may have threaded children all the same.
        """
        if path != "/":
            return self._read(path, "cgroup.type") in ("threaded", "domain threaded")
        children = self._sysfs.directories_in(_ROOT)
        return any(self._read(f"/{name}", "cgroup.type") == "threaded" for name in children)

    def units(self) -> Iterator[str]:
        """Yield the units of the system's own slice that have cgroups, and those of its slices for templates."""
        slices = ["/system.slice"]
        for path in slices:
            for name in self._sysfs.directories_in(f"{_ROOT}{path}"):
                if not name.endswith(".slice"):
                    yield name
                elif len(slices) < _MOST and path == slices[0]:
                    slices.append(f"{path}/{name}")

    def populated(self, path: str) -> bool:
        """Say whether there are processes in it or below it."""
        return "populated 1" in self._read(path, "cgroup.events")

    def isolated(self) -> str:
        """Return the CPUs of isolated partitions: the kernel's own sum, or else (Linux 6.1) that of the partitions."""
        if self._sysfs.exists(f"{_ROOT}/cpuset.cpus.isolated"):
            return self._read("", "cpuset.cpus.isolated")
        found: frozenset[int] = frozenset()
        waiting, left = [""] if self.has_cpusets() else [], _MOST
        while waiting and left > 0:
            parent = waiting.pop()
            # On such a kernel a partition's parent is a partition, or the root.
            for name in self._sysfs.directories_in(f"{_ROOT}{parent}")[:left]:
                left -= 1
                path = f"{parent}/{name}"
                kind = self._read(path, "cpuset.cpus.partition")
                if kind == "isolated":
                    found |= _parsed(self._read(path, "cpuset.cpus.effective")) or frozenset()
                if kind in ("root", "isolated"):
                    waiting.append(path)
        return cpulist.render(found)

    def walk(self, enough: Callable[[], bool]) -> Iterator[Cgroup]:
        """Yield the cgroups that have files about CPUs, the outer ones first, until `enough` says so."""
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            controls = self._read(parent, _CONTROL).split()
            if "cpuset" not in controls and "cpu" not in controls:
                continue
            for name in self._sysfs.directories_in(f"{_ROOT}{parent}"):
                if enough():
                    return
                path = f"{parent}/{name}"
                yield self._cgroup(path, controls)
                waiting.append(path)

    def _cgroup(self, path: str, controls: list[str]) -> Cgroup:
        cpusets = "cpuset" in controls
        return Cgroup(
            path,
            self._read(path, "cpuset.cpus") if cpusets else "",
            self._read(path, "cpuset.cpus.effective") if cpusets else "",
            self._read(path, "cpuset.cpus.partition") if cpusets else "",
            quota_of(self._read(path, "cpu.max")) if "cpu" in controls else None,
        )


def _parsed(text: str) -> frozenset[int] | None:
    try:
        return cpulist.parse(text)
    except ValueError:
        return None
