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
from ..core.text import no_name
from ..errors import UsageError
from . import inputs
from .unix_sockets import place, plain_name

if TYPE_CHECKING:
    from ..autoscale.settings import Settings

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_KEYS = {"qmp", "agent", "libvirt", "domain", "monitor", "workload", "autoscale"}
#: What may be done about programs that would be hurt (``core.planning.plan.OnWorkload``), the default first.
_ON_WORKLOAD = ("warn", "ignore", "refuse")

#: What is done about a VM's file that does not say where the VM is, and about one that says it wrongly of the agent.
_MEND = (
    'mend the file: qmp = "SOCKET" and, if vcpuctl does not find it, agent = "SOCKET"; '
    'or libvirt = "URI" and domain = "NAME"'
)
_NO_AGENT = 'mend the file: agent = "SOCKET", or leave agent out: vcpuctl mostly finds it'


@dataclass(frozen=True, slots=True, init=False)
class Target:
    """A VM by its sockets, each a path, as text or os.PathLike, or "@NAME", one of the abstract namespace.

    ``qmp`` is that of a QMP monitor, ``agent`` that of the agent's port; None to use the one that QEMU names.
    ``name`` is its name in vms.d, empty if it was named by its sockets. ``workload`` is what is done about programs of
    the guest that an operation would hurt, where the command does not say it. ``autoscale`` is what its file says of
    that. Raise UsageError for anything else: nobody else checks what programs give.
    """

    qmp: str
    agent: str | None
    name: str = field(compare=False)
    workload: str = field(compare=False)
    autoscale: Settings | None = field(compare=False)

    def __init__(
        self,
        qmp: str | os.PathLike[str],
        agent: str | os.PathLike[str] | None = None,
        name: str = "",
        workload: str = _ON_WORKLOAD[0],
        autoscale: Settings | None = None,
    ) -> None:
        object.__setattr__(self, "qmp", _path("qmp", qmp))
        object.__setattr__(self, "agent", None if agent is None else _path("agent", agent))
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "workload", _checked_workload(workload))
        object.__setattr__(self, "autoscale", autoscale)

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
    vms.d, empty if it was not named by that. ``workload`` is as with ``Target``, and so is what is raised.
    """

    uri: str
    domain: str
    name: str = field(default="", compare=False)
    monitor: bool = True
    workload: str = field(default=_ON_WORKLOAD[0], compare=False)
    autoscale: Settings | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("uri", self.uri), ("domain", self.domain)):
            given: object = value
            why = no_name(given, "strict") if isinstance(given, str) else "is no text"
            if why:
                raise _not_taken(f"{name} {why}: {given!r:.80}", "give libvirt's URI, and the domain's name or UUID")
        if type(self.monitor) is not bool:
            raise _not_taken(f"monitor is {self.monitor!r:.80}", "give True or False")
        _checked_workload(self.workload)

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


def checked(target: object) -> AnyTarget:
    """Return it. Raise UsageError for what is no VM."""
    if isinstance(target, Target | Domain):
        return target
    raise _not_taken(f"{target!r:.80} is no VM", "give a Target or a Domain")


def _path(name: str, value: object) -> str:
    path: object = os.fspath(value) if isinstance(value, os.PathLike) else value
    why = no_name(path) if isinstance(path, str) else "is no path"
    if why or not isinstance(path, str):
        text = f"{name} {why}: {value!r:.80}"
        raise UsageError(Reason(codes.NOT_A_SOCKET, Origin.VCPUCTL, text, "give the path of a unix socket, or @NAME"))
    return path


def _checked_workload(value: object) -> str:
    if not isinstance(value, str) or value not in _ON_WORKLOAD:
        raise _not_taken(f"workload is {value!r:.80}", f"it is one of {', '.join(_ON_WORKLOAD)}")
    return value


def _not_taken(text: str, hint: str) -> UsageError:
    return UsageError(Reason(codes.BAD_USAGE, Origin.VCPUCTL, text, hint))


def directories() -> tuple[Path, ...]:
    """Return where ``NAME.toml`` is looked for, in order."""
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
    except NotADirectoryError as error:
        raise _bad_directory(path.parent, error) from error
    except PermissionError as error:
        raise _bad_file(path, f"{error.strerror}", "see to it that you may read it, or run vcpuctl as root") from error
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
            yield directory, _bad_directory(directory, error).reason
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


def _bad_directory(path: Path, error: OSError) -> UsageError:
    """Return the error that files cannot be looked for there."""
    hint = "it has to be a directory that you may read, or not to be there"
    if os.environ.get("XDG_CONFIG_HOME"):
        hint = f"XDG_CONFIG_HOME says where your own files are: mend or unset it; {hint}"
    return _bad_file(path, error.strerror or str(error), hint)


def _bad_file(path: Path, problem: str, hint: str = _MEND) -> UsageError:
    return UsageError(Reason(codes.BAD_VM_FILE, Origin.VCPUCTL, f"{path}: {problem}", hint))


def _parse(path: Path, table: dict[str, object]) -> AnyTarget:
    unknown = set(table) - _KEYS
    if unknown:
        raise _bad_file(path, f"unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
    if "libvirt" in table or "domain" in table:
        return _domain(path, table)
    if not isinstance(table.get("qmp"), str) or not table["qmp"]:
        raise _bad_file(path, "qmp is missing, or is no path")
    if "monitor" in table:
        hint = "leave monitor out, or name the VM by libvirt and domain and not by qmp"
        raise _bad_file(path, "monitor is for a VM that libvirt owns", hint)
    return Target(
        _socket(path, "qmp", table["qmp"], _MEND),
        _socket(path, "agent", table["agent"], _NO_AGENT) if "agent" in table else None,
        path.stem,
        _on_workload(path, table),
        _autoscale(path, table),
    )


def _socket(path: Path, key: str, value: object, hint: str) -> str:
    if not isinstance(value, str):
        raise _bad_file(path, f"{key} is no path", hint)
    name = plain_name(value)
    why = no_name(name)
    if why:
        raise _bad_file(path, f"{key} {why}: {value!r:.80}", hint)
    return name


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
    for key, value in (("libvirt", uri), ("domain", domain)):
        if why := no_name(value, "strict"):
            raise _bad_file(path, f"{key} {why}: {value!r:.80}")
    if "qmp" in table or "agent" in table:
        raise _bad_file(path, "a VM is reached by libvirt or by its sockets, not by both")
    monitor = table.get("monitor", True)
    if not isinstance(monitor, bool):
        raise _bad_file(path, "monitor is neither true nor false", "mend the file: monitor = false, or leave it out")
    return Domain(uri, domain, path.stem, monitor, _on_workload(path, table), _autoscale(path, table))


def _on_workload(path: Path, table: dict[str, object]) -> str:
    value = table.get("workload", _ON_WORKLOAD[0])
    if not isinstance(value, str) or value not in _ON_WORKLOAD:
        hint = 'mend the file: workload = "warn", or leave it out'
        raise _bad_file(path, f"workload is none of {', '.join(_ON_WORKLOAD)}", hint)
    return value
