# SPDX-License-Identifier: Apache-2.0
"""A VM's sockets by name: ``vms.d/NAME.toml`` in the user's and the system's configuration, the user's first.

qmp = "/run/vms/web1/qmp.sock"
agent = "/run/vms/web1/agent.sock"     # optional: found through QMP otherwise
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..core.reason import Origin, Reason
from ..errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEYS = {"qmp", "agent"}


@dataclass(frozen=True, slots=True)
class VmSockets:
    """Where a VM can be reached."""

    qmp: str
    agent: str | None = None


def directories() -> tuple[Path, ...]:
    """Where ``NAME.toml`` is looked for, in order."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "vcpuctl", "vms.d"), Path("/etc/vcpuctl/vms.d")


def load(name: str) -> VmSockets:
    """The sockets of the VM ``name``. UsageError if there is no such file or it is not right."""
    if not _NAME.fullmatch(name):
        hint = "a name has letters, digits and . _ -, and begins with a letter or a digit"
        raise UsageError(Reason("bad-vm-name", Origin.VCPUCTL, f"{name!r} is no name of a VM", hint))
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
    return UsageError(Reason("no-such-vm", Origin.VCPUCTL, f"there is no {name}.toml in {places}", hint))


def _bad_file(path: Path, problem: str) -> UsageError:
    hint = 'mend the file: qmp = "SOCKET" and, if vcpuctl does not find it, agent = "SOCKET"'
    return UsageError(Reason("bad-vm-file", Origin.VCPUCTL, f"{path}: {problem}", hint))


def _parse(path: Path, table: dict[str, object]) -> VmSockets:
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
    return VmSockets(qmp, agent if isinstance(agent, str) else None)
