# SPDX-License-Identifier: Apache-2.0
"""Many VMs: which of them words name, and how many vCPUs each is to have, as a file says it.

The file is TOML, or JSON of the same shape:

    [vms]
    web1 = 4

    [vms.web2]
    vcpus = 8

    [vms.db1]
    vcpus = 2
    libvirt = "qemu+ssh://root@host1/system"
    domain = "db1"

A VM is a name of vms.d, unless the file itself says which domain of which libvirt it is.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from .text import is_pattern, no_name

#: The version of the file's format; a file may say it.
FORMAT = 1
#: No VM has more vCPUs; the number has to fit where it is sent (``sharing.calls``).
_MOST = (1 << 32) - 1
_KEYS = ("vcpus", "libvirt", "domain", "monitor")


class GoalsError(ValueError):
    """A file that does not say what each VM is to have; its text is for people."""


class NoMatchError(ValueError):
    """A pattern that no VM's name fits. Its text is the pattern."""


class Goal(NamedTuple):
    """How many vCPUs a VM is to have online.

    ``libvirt`` (a URI) and ``domain`` say where it is, if the file does; both are None for a name of vms.d.
    ``monitor``: QEMU's monitor may be asked through libvirt.
    """

    name: str
    vcpus: int
    libvirt: str | None = None
    domain: str | None = None
    monitor: bool = True


def goals(text: str) -> tuple[Goal, ...]:
    """Return what the file with this text wants, in its order. Raise GoalsError.

    Text that begins with a brace is JSON: no TOML does.
    """
    text = text.lstrip("\ufeff")  # with which some editors begin a file, and neither language does
    document = _json(text) if text.lstrip(" \t\r\n").startswith("{") else _toml(text)
    if not isinstance(document, dict):
        raise GoalsError("it is no table of VMs")
    unknown = sorted(set(document) - {"vms", "schema_version"})
    if unknown:
        raise GoalsError(f"unknown key {unknown[0]!r:.80}: VMs stand below vms")
    version = document.get("schema_version", FORMAT)
    if type(version) is not int or version != FORMAT:
        raise GoalsError(f"its schema_version is {version!r:.40}, and this vcpuctl reads {FORMAT}")
    vms = document.get("vms")
    if not isinstance(vms, dict):
        raise GoalsError("vms is missing, or is no table of VMs")
    if not vms:
        raise GoalsError("it names no VM")
    return tuple(_goal(name, wanted) for name, wanted in vms.items())


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError as such
        raise GoalsError(str(error)) from error


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_doubles)
    except GoalsError:
        raise
    except (ValueError, RecursionError) as error:
        raise GoalsError(str(error)) from error


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object with these names and values. TOML itself has no doubles; JSON's last one would win."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise GoalsError(f"{name!r:.80} is there twice")
        found[name] = value
    return found


def _goal(name: str, wanted: Any) -> Goal:
    place: dict[str, Any] = {}
    if isinstance(wanted, dict):
        unknown = sorted(set(wanted) - set(_KEYS))
        if unknown:
            # In TOML a name with a dot is a table in a table, unless it is quoted.
            quoted = f'; a name with a dot is quoted: "{name}.{unknown[0]}"'
            raise GoalsError(f"{name!r:.80}: unknown key {unknown[0]!r:.80}; known are {', '.join(_KEYS)}{quoted:.200}")
        if "vcpus" not in wanted:
            raise GoalsError(f"{name!r:.80}: vcpus is missing")
        place = _place(name, wanted)
        wanted = wanted["vcpus"]
    if type(wanted) is not int or not 1 <= wanted <= _MOST:
        raise GoalsError(f"{name!r:.80}: {wanted!r:.40} is not a number of vCPUs, of at least 1")
    return Goal(name, wanted, **place)


def _place(name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return where the VM is, if the file says it."""
    place: dict[str, Any] = {key: wanted[key] for key in ("libvirt", "domain") if key in wanted}
    for key, value in place.items():
        if not isinstance(value, str) or not value:
            raise GoalsError(f"{name!r:.80}: {key} is {value!r:.40}, and no text")
        if why := no_name(value, "strict"):
            raise GoalsError(f"{name!r:.80}: {key} {why}: {value!r:.40}")
    if place and len(place) < 2:
        raise GoalsError(f"{name!r:.80}: libvirt and domain are given together, or neither")
    if "monitor" in wanted:
        if not place or not isinstance(wanted["monitor"], bool):
            raise GoalsError(f"{name!r:.80}: monitor is true or false, and stands beside libvirt and domain")
        place["monitor"] = wanted["monitor"]
    return place


def named(words: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the names that words and patterns mean, each once, in the order of the words.

    A word that is no pattern is a name, known or not. Raise NoMatchError for a pattern that fits no name.
    """
    from fnmatch import fnmatchcase

    found: dict[str, None] = {}
    for word in words:
        fits = [name for name in known if fnmatchcase(name, word)] if is_pattern(word) else [word]
        if not fits:
            raise NoMatchError(word)
        found |= dict.fromkeys(fits)
    return list(found)
