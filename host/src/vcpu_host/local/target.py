# SPDX-License-Identifier: Apache-2.0
"""Where a VM is reached: its sockets, in the words that people have for them, or by a name that stands for them.

A name stands for ``vms.d/NAME.toml`` in the user's configuration, else in the system's:

qmp = "/run/vms/web1/qmp.sock"
agent = "/run/vms/web1/agent.sock"     # optional: found through QMP otherwise
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_KEYS = {"qmp", "agent"}

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
    """

    qmp: str
    agent: str | None = None

    @classmethod
    def named(cls, name: str) -> Target:
        """Return the VM with that name. Raise UsageError if there is no such file, or if it is not right."""
        return _load(name)


def directories() -> tuple[Path, ...]:
    """Where ``NAME.toml`` is looked for, in order."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "vcpuctl", "vms.d"), Path("/etc/vcpuctl/vms.d")


def _load(name: str) -> Target:
    if not re.fullmatch(_NAME, name):
        hint = "a name has letters, digits and . _ -, and begins with a letter or a digit"
        raise UsageError(Reason(codes.BAD_VM_NAME, Origin.VCPUCTL, f"{name!r} is no name of a VM", hint))
    # Late: most commands name a socket.
    import tomllib

    for directory in directories():
        path = directory / f"{name}.toml"
        try:
            with path.open("rb") as file:
                return _parse(path, tomllib.load(file))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _bad_file(path, error.strerror or str(error)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad_file(path, str(error)) from error
    raise _no_such_vm(name)


def _no_such_vm(name: str) -> UsageError:
    from ..core.text import nearest

    known = {path.stem for directory in directories() for path in directory.glob("*.toml")}
    near = nearest(name, known)
    places = " or ".join(str(directory) for directory in directories())
    hint = f"did you mean {near}? or give --qmp SOCKET" if near else "make that file, or give --qmp SOCKET"
    return UsageError(Reason(codes.NO_SUCH_VM, Origin.VCPUCTL, f"there is no {name}.toml in {places}", hint))


def _bad_file(path: Path, problem: str) -> UsageError:
    hint = 'mend the file: qmp = "SOCKET" and, if vcpuctl does not find it, agent = "SOCKET"'
    return UsageError(Reason(codes.BAD_VM_FILE, Origin.VCPUCTL, f"{path}: {problem}", hint))


def _parse(path: Path, table: dict[str, object]) -> Target:
    unknown = set(table) - _KEYS
    qmp, agent = table.get("qmp"), table.get("agent")
    problem = ""
    if unknown:
        problem = f"unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}"
    elif not isinstance(qmp, str) or not qmp:
        problem = "qmp is missing, or is no path"
    elif agent is not None and not isinstance(agent, str):
        problem = "agent is no path"
    if problem or not isinstance(qmp, str):
        raise _bad_file(path, problem)
    return Target(plain_name(qmp), plain_name(agent) if isinstance(agent, str) else None)


def plain_name(text: str) -> str:
    """The path, or "@NAME", that ``text`` means: that itself, or as in QEMU's unix:PATH,server=on,wait=off.

    UsageError "not-unix" for what is no unix socket on which QEMU listens.
    """
    if text.startswith(_OTHERS):
        raise _not_unix(f"{text} is no unix socket, and vcpuctl speaks to no other")
    if not text.startswith("unix:"):
        return text
    # A comma in the path is doubled (qemu-options of the first kind; util/qemu-option.c, get_opt_value).
    first, *options = text.removeprefix("unix:").replace(",,", "\0").split(",")
    path = first.removeprefix("path=").replace("\0", ",")
    said = dict(option.partition("=")[::2] for option in options)
    if said.get("server", "on") == "off":
        raise _not_unix(f"{text}: QEMU is the client there, and nobody listens for vcpuctl")
    return f"@{path}" if said.get("abstract") == "on" else path


def _not_unix(text: str) -> UsageError:
    return UsageError(Reason(codes.NOT_UNIX, Origin.VCPUCTL, text, _ONLY_UNIX))
