# SPDX-License-Identifier: Apache-2.0
"""Where a VM is reached: its sockets, in the words that people have for them, or by a name that stands for them.

A name stands for ``vms.d/NAME.toml`` in the user's configuration, else in the system's:

qmp = "/run/vms/web1/qmp.sock"
agent = "/run/vms/web1/agent.sock"     # optional: found through QMP otherwise

or, for a VM that libvirt owns,

libvirt = "qemu+ssh://root@host1/system"
domain = "web1"
monitor = false                        # optional: look by libvirt's record alone, which does not taint the domain

and for each of them, optional, what is done about programs of the guest that an operation would hurt:

workload = "warn"                      # or "ignore", "refuse"

A table [autoscale] has vCPUs follow the guest's load (``autoscale.settings``).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError
from . import inputs
from .unix_sockets import place

if TYPE_CHECKING:
    from ..autoscale.settings import Settings

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_KEYS = {"qmp", "agent", "libvirt", "domain", "monitor", "workload", "autoscale"}
#: What may be done about programs that would be hurt (``core.planning.plan.OnWorkload``), the default first.
_ON_WORKLOAD = ("warn", "ignore", "refuse")

#: Other beginnings of what QEMU calls a character device (chardev/char.c, qemu_chr_parse_compat). Of these it could be
#: reached by one of the network's, which lets in whoever can reach it.
_OTHERS = ("tcp:", "telnet:", "websocket:", "udp:", "pty:", "pipe:", "file:", "vc:", "stdio:", "fd:", "vsock:")
_ONLY_UNIX = (
    "give QEMU -qmp unix:PATH,server=on,wait=off; a socket of another host comes here by ssh -L PATH:PATH HOST. "
    "A file with such a name is ./NAME"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A VM by its sockets, each a path or "@NAME", one of the abstract namespace.

    ``qmp`` is that of a QMP monitor, ``agent`` that of the agent's port; None to use the one that QEMU names.
    ``name`` is its name in vms.d, empty if it was named by its sockets. ``workload`` is what is done about programs of
    the guest that an operation would hurt, where the command does not say it. ``autoscale`` is what its file says of
    that.
    """

    qmp: str
    agent: str | None = None
    name: str = field(default="", compare=False)
    workload: str = field(default=_ON_WORKLOAD[0], compare=False)
    autoscale: Settings | None = field(default=None, compare=False)

    @property
    def told(self) -> str:
        """Return where the VM is reached, as it was told."""
        return self.qmp

    @property
    def place(self) -> str:
        """Return where the VM is reached: one name for whatever leads to the same monitor."""
        return place(self.qmp)

    @classmethod
    def named(cls, name: str) -> AnyTarget:
        """Return the VM with that name. Raise UsageError if there is no such file, or if it is not right."""
        return _load(name)


@dataclass(frozen=True, slots=True)
class Domain:
    """A VM that libvirt owns.

    ``uri`` says which libvirt (https://libvirt.org/uri.html), ``domain`` is the domain's name there, or its UUID.
    ``monitor``: QEMU's monitor may be asked through libvirt, which taints the domain. ``name`` is the VM's name in
    vms.d, empty if it was not named by that. ``workload`` is as with ``Target``.
    """

    uri: str
    domain: str
    name: str = field(default="", compare=False)
    monitor: bool = True
    workload: str = field(default=_ON_WORKLOAD[0], compare=False)
    autoscale: Settings | None = field(default=None, compare=False)

    @property
    def told(self) -> str:
        """Return where the VM is reached, as it was told."""
        return f"{self.uri} {self.domain}"

    @property
    def place(self) -> str:
        """Return where the VM is reached. Other words may lead to the same domain."""
        return self.told


#: A VM, whoever owns it.
AnyTarget = Target | Domain


def directories() -> tuple[Path, ...]:
    """Where ``NAME.toml`` is looked for, in order."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "vcpuctl", "vms.d"), Path("/etc/vcpuctl/vms.d")


def own_directory() -> Path:
    """Return where this user adds VMs: root for all users."""
    users, systems = directories()
    return systems if os.geteuid() == 0 else users


def check_name(name: str) -> str:
    """Return it. Raise UsageError "bad-vm-name" if it cannot be one of a VM."""
    if not re.fullmatch(_NAME, name):
        raise _bad_name(name)
    return name


def _load(name: str) -> AnyTarget:
    check_name(name)
    for directory in directories():
        try:
            return _read(directory / f"{name}.toml")
        except FileNotFoundError:
            continue
    raise _no_such_vm(name)


def _read(path: Path) -> AnyTarget:
    """Return what the file says. Raise FileNotFoundError, or UsageError if it is not right."""
    # Late: most commands name a socket.
    import tomllib

    try:
        # Before it is opened: that would wait for somebody to write into a FIFO.
        if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise _bad_file(path, "it is no file")
        with path.open("rb") as file:
            return _parse(path, tomllib.load(file))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _bad_file(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, brackets within brackets, or a number too long
        raise _bad_file(path, inputs.why(error)) from error


def listed() -> Iterator[tuple[Path, AnyTarget | Reason]]:
    """Yield every file of vms.d with the VM that it names, or with what is wrong with it.

    Files come by directory, the one that counts first, and by name. What begins with a dot or does not end with .toml
    is nobody's VM. A directory that may not be read is told like a file.
    """
    for directory in directories():
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        except OSError as error:
            yield directory, _bad_file(directory, error.strerror or str(error)).reason
            continue
        for name in names:
            if name.endswith(".toml") and not name.startswith("."):
                yield directory / name, _target_or_reason(directory / name)


def marks() -> dict[str, tuple[int, ...]]:
    """Return what is another value if what ``listed`` yields may be, and costs much less.

    Of each file and directory: device, inode, size, and the time of its last change in ns (stat(2)); nothing of what
    cannot be looked at.
    """
    found: dict[str, tuple[int, ...]] = {}
    for directory in directories():
        try:
            names = os.listdir(directory)
        except OSError as error:
            found[str(directory)] = (error.errno or 0,)
            continue
        for path in (f"{directory}/{name}" for name in names):
            try:
                status = os.stat(path)
            except OSError as error:
                found[path] = (error.errno or 0,)
            else:
                found[path] = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
    return found


def known() -> dict[str, AnyTarget | Reason]:
    """Return each VM of vms.d by its name, in alphabetical order: where it is, or what is wrong with its file.

    Of two files with one name the first counts. Raise UsageError if a directory may not be read.
    """
    found: dict[str, AnyTarget | Reason] = {}
    for path, says in listed():
        if path.suffix != ".toml" and isinstance(says, Reason):
            raise UsageError(says)
        if not (isinstance(says, Reason) and says.code == codes.NO_SUCH_VM):  # which Target.named passes over
            found.setdefault(path.stem, says)
    return dict(sorted(found.items()))


def _target_or_reason(path: Path) -> AnyTarget | Reason:
    if not re.fullmatch(_NAME, path.stem):
        return _bad_name(path.stem).reason
    try:
        return _read(path)
    except FileNotFoundError:
        hint = "mend the link, or remove it"
        return Reason(codes.NO_SUCH_VM, Origin.VCPUCTL, f"{path} is a link that leads nowhere", hint)
    except UsageError as error:
        return error.reason


def _bad_name(name: str) -> UsageError:
    hint = "a name has letters, digits and . _ -, and begins with a letter or a digit"
    return UsageError(Reason(codes.BAD_VM_NAME, Origin.VCPUCTL, f"{name!r} is no name of a VM", hint))


def _no_such_vm(name: str) -> UsageError:
    from ..core.text import nearest

    known = {path.stem for directory in directories() for path in directory.glob("*.toml")}
    near = nearest(name, known)
    places = " or ".join(str(directory) for directory in directories())
    hint = f"did you mean {near}? or give --qmp SOCKET" if near else "make that file, or give --qmp SOCKET"
    return UsageError(Reason(codes.NO_SUCH_VM, Origin.VCPUCTL, f"there is no {name}.toml in {places}", hint))


def _bad_file(path: Path, problem: str) -> UsageError:
    hint = (
        'mend the file: qmp = "SOCKET" and, if vcpuctl does not find it, agent = "SOCKET"; '
        'or libvirt = "URI" and domain = "NAME"'
    )
    return UsageError(Reason(codes.BAD_VM_FILE, Origin.VCPUCTL, f"{path}: {problem}", hint))


def _parse(path: Path, table: dict[str, object]) -> AnyTarget:
    unknown = set(table) - _KEYS
    if unknown:
        raise _bad_file(path, f"unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
    if "libvirt" in table or "domain" in table:
        return _domain(path, table)
    qmp, agent = table.get("qmp"), table.get("agent")
    if not isinstance(qmp, str) or not qmp:
        raise _bad_file(path, "qmp is missing, or is no path")
    if "monitor" in table:
        raise _bad_file(path, "monitor is for a VM that libvirt owns")
    if agent is not None and not isinstance(agent, str):
        raise _bad_file(path, "agent is no path")
    return Target(
        plain_name(qmp),
        None if agent is None else plain_name(agent),
        path.stem,
        _on_workload(path, table),
        _autoscale(path, table),
    )


def _autoscale(path: Path, table: dict[str, object]) -> Settings | None:
    if "autoscale" not in table:
        return None
    # Late: most files have no such table.
    from ..autoscale.settings import SettingsError, parse

    try:
        return parse(table["autoscale"])
    except SettingsError as error:
        hint = "mend the table; vcpuctl(1), AUTOSCALING, has all keys"
        raise UsageError(Reason(codes.BAD_VM_FILE, Origin.VCPUCTL, f"{path}: {error}", hint)) from error


def _domain(path: Path, table: dict[str, object]) -> Domain:
    uri, domain = table.get("libvirt"), table.get("domain")
    if not isinstance(uri, str) or not uri:
        raise _bad_file(path, "libvirt is missing, or is no URI")
    if not isinstance(domain, str) or not domain:
        raise _bad_file(path, "domain is missing, or is no name of a domain")
    if "qmp" in table or "agent" in table:
        raise _bad_file(path, "a VM is reached by libvirt or by its sockets, not by both")
    monitor = table.get("monitor", True)
    if not isinstance(monitor, bool):
        raise _bad_file(path, "monitor is neither true nor false")
    return Domain(uri, domain, path.stem, monitor, _on_workload(path, table), _autoscale(path, table))


def _on_workload(path: Path, table: dict[str, object]) -> str:
    value = table.get("workload", _ON_WORKLOAD[0])
    if not isinstance(value, str) or value not in _ON_WORKLOAD:
        raise _bad_file(path, f"workload is none of {', '.join(_ON_WORKLOAD)}")
    return value


def plain_name(text: str) -> str:
    """The path, or "@NAME", that ``text`` means: that itself, or as in QEMU's unix:PATH,server=on,wait=off.

    UsageError "not-unix" for what is no unix socket on which QEMU listens.
    """
    if text.startswith(_OTHERS):
        raise _not_unix(f"{text} is no unix socket, and vcpuctl speaks to no other")
    if not text.startswith("unix:"):
        return text
    # Late: most sockets are named by their paths.
    from ..core.qemu_argv import is_on, settings

    said = settings(text.removeprefix("unix:"), "path")
    if not is_on({"server": "on", **said}, "server"):
        raise _not_unix(f"{text}: QEMU is the client there, and nobody listens for vcpuctl")
    return f"@{said.get('path', '')}" if is_on(said, "abstract") else said.get("path", "")


def _not_unix(text: str) -> UsageError:
    return UsageError(Reason(codes.NOT_UNIX, Origin.VCPUCTL, text, _ONLY_UNIX))
