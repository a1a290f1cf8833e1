# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, read as QEMU reads it, as far as it says how a VM is reached: monitors, agent's port, name.

Sources are QEMU's own, by file and function. Words that QEMU would not have started with may mean anything
here, but raise nothing: a process may only look like a QEMU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .channel import PORT_NAME
from .text import printable

#: The options that take no argument (qemu-options.hx, DEF(name, 0, ...)), of all versions since 2.12 and all targets.
#: Every other one takes the next word, whatever that begins with (system/vl.c, lookup_opt).
_FLAGS = frozenset(
    # Not one by one: that would be fifty lines.
    """S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-hax enable-kvm
    enable-sync-profile full-screen h help jitdump localtime mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-kvm
    no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection no-quit no-reboot no-shutdown no-user-config nodefaults
    nodefconfig nographic old-param one-insn-per-tb only-migratable perfmap portrait preconfig rtc-td-hack s sdl
    semihosting show-cursor singlestep snapshot std-vga tdf usb version win2k-hack xen-attach xen-create
    xen-domid-restrict""".split()  # noqa: SIM905 - as above
)
#: Options of the dynamic linker that take the next word (ld.so(8)).
_LINKERS = frozenset(
    f"--{name}"
    for name in (
        *("library-path", "preload", "audit", "argv0", "inhibit-rpath"),
        *("glibc-hwcaps-prepend", "glibc-hwcaps-mask"),
    )
)
#: What libvirt calls its monitor's chardev. So do systemd-vmspawn and others that start QEMU, so it is not enough.
_LIBVIRTS_MONITOR = "charmonitor"
#: What libvirt calls the secret that each of its domains has, in a file (seen from 2.x to today).
_LIBVIRTS_OBJECT = "masterKey0"
#: No path of a unix socket is longer (unix(7), sun_path with its NUL); an abstract name may be as long.
_LONGEST_PATH = 107
#: So many monitors and unread options are told of one process.
_MOST = 16
_LONGEST_NAME = 200
#: Ends the name of a setting.
_STOP = re.compile("[=,]")


@dataclass(frozen=True, slots=True)
class Chardev:
    """A character device: ``backend`` as -chardev has it.

    Of a unix socket ``path`` is what QEMU was given, and ``abstract`` whether that is a name of the abstract namespace;
    ``fd`` is the number of a descriptor that QEMU was handed instead. ``listens``: QEMU is the server.
    """

    backend: str = ""
    path: str = ""
    abstract: bool = False
    fd: int | None = None
    listens: bool = False

    @property
    def bound(self) -> str:
        """The socket's name as ``local.unix_sockets`` has it: a path, or "@NAME"; empty if the words have none."""
        if self.abstract:
            return f"@{self.path}"
        return f"./{self.path}" if self.path.startswith("@") else self.path

    @property
    def reachable(self) -> bool:
        """Whether QEMU listens there on a socket that may be one of the unix family."""
        return self.listens and (self.fd is not None or 0 < len(self.path.encode(errors="replace")) <= _LONGEST_PATH)

    @property
    def told(self) -> str:
        """What it is, in few words, printable."""
        if self.backend != "socket":
            return printable(self.backend or "nothing", 40)
        where = f"unix:{self.bound}" if self.path else "a socket that QEMU was handed" if self.fd is not None else "tcp"
        return printable(where, 160) + ("" if self.listens else ",server=off")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a QEMU's words say. ``monitors`` are those that speak QMP, ``port`` what the agent's port is joined to.

    ``port`` is None if there is no such port. ``libvirt``: libvirt started it, and holds its monitor. ``unread`` are
    options that may say more, and were not read.
    """

    name: str = ""
    monitors: tuple[Chardev, ...] = ()
    port: Chardev | None = None
    libvirt: bool = False
    unread: tuple[str, ...] = ()


def program(argv: Sequence[str]) -> Sequence[str]:
    """Return the words from the program on: bundles start it by the dynamic linker, with options of that before it."""
    name = argv[0].rpartition("/")[2] if argv else ""
    if not (name.startswith(("ld-", "ld.", "ld64.")) and ".so" in name):
        return argv
    place = 1
    while place < len(argv) and argv[place].startswith("--"):
        place += 2 if argv[place] in _LINKERS else 1
    return argv[place:]


def read(argv: Sequence[str]) -> CommandLine:
    """Return what the command line says; its first word is the program."""
    found = _Found()
    for option, value in _options(argv):
        found.take(option, value)
    return found.result()


class _Found:
    """What was found so far. Chardevs are looked up at the end: QEMU takes options in any order."""

    def __init__(self) -> None:
        self._name = ""
        self._chardevs: dict[str, Chardev] = {}
        self._monitors: list[Chardev | str] = []
        self._port: str | None = None
        self._unread: list[str] = []
        self._has_object = False

    def take(self, option: str, value: str) -> None:
        """Read one option."""
        match option:
            case "name":
                # One list of settings, however often it is given (system/vl.c, qemu_name_opts: merge_lists).
                self._name = settings(value, "guest").get("guest", self._name)
            case "chardev":
                words = settings(value, "backend")
                self._chardevs.setdefault(words.get("id", ""), _chardev(words))
            case "mon":
                words = settings(value, "chardev")
                if words.get("mode", "readline") == "control":
                    self._monitors.append(words.get("chardev", ""))
            case "qmp" | "qmp-pretty":
                self._monitors.append(_compat(value))
            case "device":
                self._device(value)
            case "object":
                words = _json(value) or {} if value.startswith("{") else settings(value, "qom-type")
                self._has_object |= words.get("id") == _LIBVIRTS_OBJECT
            case "readconfig" | "set":
                self._unread.append(f"-{option} {printable(value, 80)}")
            case _:
                pass

    def _device(self, value: str) -> None:
        words = _json(value) if value.startswith("{") else settings(value, "driver")
        if words is None:
            self._unread.append("-device " + printable(value, 80))
        elif words.get("driver") == "virtserialport" and words.get("name") == PORT_NAME and self._port is None:
            self._port = words.get("chardev", "")

    def _is_libvirts(self) -> bool:
        """Return whether libvirt started it: by names that it gives, or, in versions before that object, by a path."""
        if _LIBVIRTS_MONITOR not in self._monitors:
            return False
        monitor = self._chardevs.get(_LIBVIRTS_MONITOR)
        return self._has_object or (monitor is not None and "/libvirt/" in monitor.path)

    def result(self) -> CommandLine:
        """Return it with the chardevs in their places."""
        nothing = Chardev()
        monitors = self._monitors[:_MOST]
        return CommandLine(
            printable(self._name, _LONGEST_NAME),
            tuple(self._chardevs.get(each, nothing) if isinstance(each, str) else each for each in monitors),
            None if self._port is None else self._chardevs.get(self._port, nothing),
            self._is_libvirts(),
            tuple(self._unread[:_MOST]),
        )


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each option that takes an argument, without its dashes, of which there may be two, with the argument.

    (system/vl.c, qemu_init and lookup_opt; a word without a dash is the file of a disk.)
    """
    words = iter(argv[1:])
    for word in words:
        if not word.startswith("-"):
            continue
        option = word[2:] if word.startswith("--") else word[1:]
        if option not in _FLAGS:
            yield option, next(words, "")


def settings(text: str, implied: str = "") -> dict[str, str]:
    """Return what "NAME=VALUE,..." says; ``implied`` is the name of a first value that stands alone.

    Two commas in a value mean one. A name without a value is on, or, as "noNAME", off. The last of two settings counts.
    (util/qemu-option.c, get_opt_name_value, get_opt_value and qemu_opt_find.)
    """
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        stop = _STOP.search(text, place)
        end = stop.start() if stop else len(text)
        name = text[place:end]
        if text[end : end + 1] == "=":
            found[name], place = _value(text, end + 1)
        elif implied and place == 0:
            found[implied], place = _value(text, 0)
        else:
            flag = name.startswith("no")
            found[name[2:] if flag else name] = "off" if flag else "on"
            place = end + 1
    return found


def _value(text: str, place: int) -> tuple[str, int]:
    """Return the value that begins there, and where the next setting does."""
    parts = []
    while True:
        comma = text.find(",", place)
        end = len(text) if comma < 0 else comma
        parts.append(text[place:end])
        if text[end + 1 : end + 2] != ",":
            return ",".join(parts), end + 1
        place = end + 2


def is_on(words: Mapping[str, str], name: str) -> bool:
    """Return whether a switch is on; it is off if it is not named (qapi/qapi-util.c, qapi_bool_parse)."""
    return words.get(name, "off") in ("on", "yes", "true", "y")


def _compat(text: str) -> Chardev | str:
    """Return the chardev that -qmp makes, or the id of the one that it names.

    (system/vl.c, monitor_parse; chardev/char.c, qemu_chr_parse_compat.)
    """
    if text.startswith("chardev:"):
        return text.removeprefix("chardev:")
    text = text.removeprefix("mon:")
    if text.startswith("unix:"):
        return _chardev({"backend": "socket", **settings(text.removeprefix("unix:"), "path")})
    return Chardev(text.partition(":")[0].partition(",")[0])


def _chardev(words: Mapping[str, str]) -> Chardev:
    """Return what -chardev says (chardev/char-socket.c, qemu_chr_parse_socket: without server=on QEMU connects)."""
    backend = words.get("backend", "")
    if backend != "socket":
        return Chardev(backend)
    fd = words.get("fd", "")
    return Chardev(
        backend,
        words.get("path", ""),
        is_on(words, "abstract"),
        int(fd) if fd.isascii() and fd.isdigit() and len(fd) < 10 else None,
        is_on(words, "server"),
    )


def _json(text: str) -> dict[str, str] | None:
    """Return the settings that are strings; None if the text cannot be read.

    (system/vl.c, QEMU_OPTION_device: what begins with a brace is JSON.)
    """
    try:
        words: dict[str, object] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return {name: value for name, value in words.items() if isinstance(value, str)}
