# SPDX-License-Identifier: Apache-2.0
"""Reads and writes /sys. Only this module and platforms/rtas.py open files there.

Three rules of the kernel shape it (drivers/base/cpu.c, drivers/base/core.c):

- Reading cpuN/online takes the device's lock, which an online or offline operation holds for as long as it runs. So
  states are read from the lists `online` and `present`, which take no lock; only the write blocks.
- A CPU that cannot be switched (cpu0 on x86) has no `online` file. The file of the others must be opened without
  O_TRUNC and O_CREAT: sysfs answers an attempt to create a file with EACCES, which hides the real cause.
- One write(2) is one request, and its errno is the answer; a buffered file would lose it. An errno of open(2) does not
  come from the kernel's CPU code but from the mount, the file's mode or a security module, so the two are told apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vcpu_guest.core import cpulist

#: Writes one attribute. Raises OSError with the kernel's errno, NotOpenedError if it cannot be opened for writing.
Write = Callable[[str, bytes], None]
#: Opens one attribute for writing and closes it, which changes nothing. Raises OSError.
Try = Callable[[str], None]

_CPUS = "devices/system/cpu"
_NODES = "devices/system/node"
#: Says whether the kernel ejects CPUs when the firmware asks for it (drivers/acpi/sysfs.c, enabled_store).
_EJECT = "firmware/acpi/hotplug/processor/enabled"

#: Bytes; no attribute that we read is longer. Most have a page at most, but a list of 4096 scattered CPUs needs more.
_READ_SIZE = 65536


class NotOpenedError(OSError):
    """The file could not be opened for writing, so the kernel was not asked for anything."""


class Sysfs:
    """Reads and writes below one root, /sys unless a test says otherwise.

    With `write` and `attempt` tests answer in the kernel's place: a plain directory cannot refuse with an errno.
    """

    def __init__(self, root: str | Path = "/sys", write: Write | None = None, attempt: Try | None = None) -> None:
        self.root = os.fspath(root)
        self.cpu_dir = f"{self.root}/{_CPUS}"
        self._write = write or write_attribute
        self._attempt = attempt or try_attribute

    def read(self, path: str) -> str | None:
        """Return the text of an attribute below the root; None if there is no such file.

        White space around it and a final NUL are removed. Raise OSError if anything else goes wrong.
        """
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", "replace").strip("\0").strip()

    def read_bytes(self, path: str) -> bytes | None:
        """Return an attribute as it is: properties of a device tree are binary. Otherwise like `read`."""
        try:
            fd = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.read(fd, _READ_SIZE)
        except OSError as error:
            # If the directory went between open and read, kernfs answers ENODEV.
            if isinstance(error, FileNotFoundError) or error.errno == _ENODEV:
                return None
            raise
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Say whether there is such a file or directory."""
        return os.path.exists(f"{self.root}/{path}")

    def directories_in(self, path: str) -> list[str]:
        """Return the names of the directories in a directory, in no order; none if it is not there any more."""
        try:
            with os.scandir(f"{self.root}/{path}") as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def files_in(self, path: str) -> list[str]:
        """Return the names of the files in a directory, in no order; none if it is not there."""
        try:
            with os.scandir(f"{self.root}/{path}") as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except OSError:
            return []

    def links_in(self, path: str) -> list[str]:
        """Return the names of the symbolic links in a directory, as a class has them; none if it is not there."""
        try:
            with os.scandir(f"{self.root}/{path}") as entries:
                return [entry.name for entry in entries if entry.is_symlink()]
        except OSError:
            return []

    def link_name(self, path: str) -> str | None:
        """Return the last part of a link's target; None if there is no such link."""
        try:
            return os.path.basename(os.readlink(f"{self.root}/{path}"))
        except FileNotFoundError:
            return None

    def read_cpu(self, number: int, name: str) -> str | None:
        """Return an attribute of cpuN, stripped; None if the CPU or the attribute does not exist."""
        return self.read(f"devices/system/cpu/cpu{number}/{name}")

    def read_cpu_number(self, number: int, name: str) -> int | None:
        """Return an attribute of cpuN that holds a number; None if absent, or negative (the kernel's "not known")."""
        text = self.read_cpu(number, name)
        return int(text) if text and text.isascii() and text.isdigit() else None

    def mask(self, name: str) -> frozenset[int]:
        """Return the list "online", "present", "possible", "isolated" or "nohz_full"; absent means none."""
        return cpulist.parse(self.read(f"devices/system/cpu/{name}") or "")

    def smt_control(self) -> str:
        """Return the text of smt/control: "on", "off", "forceoff" and others, or a number of threads a core.

        "" where there is no such file (kernel/cpu.c, control_show).
        """
        return self.read(f"{_CPUS}/smt/control") or ""

    def directories(self) -> frozenset[int]:
        """Return the N of every cpuN directory."""
        with os.scandir(self.cpu_dir) as entries:
            return frozenset(
                int(name[3:])
                for name in (entry.name for entry in entries)
                if name.startswith("cpu") and _number(name[3:])
            )

    def incarnation(self, number: int) -> int | None:
        """Return a number that changes when cpuN is removed and added again; None while there is no cpuN.

        kernfs gives every new directory a new inode (fs/kernfs/dir.c, __kernfs_new_node, idr_alloc_cyclic).
        """
        try:
            return os.stat(f"{self.cpu_dir}/cpu{number}").st_ino
        except FileNotFoundError:
            return None

    def has_online(self, number: int) -> bool:
        """Say whether the kernel lets this CPU be switched at all."""
        return self.exists(f"devices/system/cpu/cpu{number}/online")

    def node(self, number: int) -> int | None:
        """Return the NUMA node of cpuN, from its nodeM link; None where the kernel shows none."""
        try:
            names = os.listdir(f"{self.cpu_dir}/cpu{number}")
        except FileNotFoundError:
            return None
        return next((int(name[4:]) for name in names if name.startswith("node") and _number(name[4:])), None)

    def node_running(self, number: int) -> int | None:
        """Return the NUMA node of an online cpuN, from the nodes' own lists.

        The lists hold online CPUs only (drivers/base/node.c). None if the CPU is offline, or if there are no nodes.
        """
        for name in self._nodes():
            if number in cpulist.parse(self.read(f"{_NODES}/{name}/cpulist") or ""):
                return int(name[4:])
        return None

    def _nodes(self) -> list[str]:
        try:
            names = os.listdir(f"{self.root}/{_NODES}")
        except FileNotFoundError:
            return []
        return [name for name in names if name.startswith("node") and _number(name[4:])]

    def write_online(self, number: int, *, online: bool) -> None:
        """Ask the kernel to switch cpuN. Its answer may take seconds. Raise OSError with its errno."""
        self._write(f"{self.cpu_dir}/cpu{number}/online", b"1" if online else b"0")

    def settled_online(self, number: int) -> bool:
        """Wait until nobody is switching cpuN, which may take seconds, and say whether it is online.

        While somebody brings a CPU up, the list `online` shows it only towards the end.
        """
        return self.read_cpu(number, "online") == "1"

    def switching_denied(self) -> tuple[str, int] | None:
        """Try to open a CPU's file for writing. Return the file and the errno, 0 if it was opened.

        Any CPU's file will do: they share the mount, the mode and the kind. If no CPU has one (one CPU, on x86),
        another file that is written likewise is tried. None if there is no such file either.
        """
        names = (f"cpu{number}/online" for number in sorted(self.directories()))
        path = next((f"{self.cpu_dir}/{name}" for name in (*names, "uevent") if self.exists(f"{_CPUS}/{name}")), None)
        return None if path is None else (path, self._denied(path))

    def eject_denied(self) -> tuple[str, int]:
        """Do the same with the file that allows ejections."""
        path = f"{self.root}/{_EJECT}"
        return path, self._denied(path)

    def _denied(self, path: str) -> int:
        try:
            self._attempt(path)
        except FileNotFoundError:  # the CPU has gone meanwhile
            return 0
        except OSError as error:
            return error.errno or _EIO
        return 0

    def eject_enabled(self) -> bool | None:
        """Say whether the kernel ejects CPUs when asked to; None where there is no such file. Takes no lock."""
        text = self.read(_EJECT)
        return None if text is None else text == "1"

    def acpi(self) -> bool | None:
        """Say whether the kernel runs with ACPI (drivers/acpi/bus.c, acpi_init); None where it shows no firmware."""
        return self.exists("firmware/acpi") if self.exists("firmware") else None

    def write_eject_enabled(self, *, enabled: bool) -> None:
        """Allow or forbid ejections. Waits for a hotplug under way (its lock: drivers/acpi/scan.c). Raise OSError."""
        self._write(f"{self.root}/{_EJECT}", b"1" if enabled else b"0")


def write_attribute(path: str, data: bytes) -> None:
    """Open and write once, so that the errno is the kernel's answer to this request.

    Raise OSError, NotOpenedError if the file may not be opened for writing.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotOpenedError(error.errno, error.strerror, path) from error
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def try_attribute(path: str) -> None:
    """Open the file for writing: unlike access(2), that asks every security module. Raise OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))


_EIO, _ENODEV = 5, 19


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6
