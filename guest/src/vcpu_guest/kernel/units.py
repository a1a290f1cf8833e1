# SPDX-License-Identifier: Apache-2.0
"""Reads systemd's unit files for CPUAffinity=, the one setting with which a unit cannot start on other CPUs.

systemd itself is not asked: a question over D-Bus for each unit costs more than reading the few hundred files, whose
directories are read again only when one of them has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from vcpu_guest.core import workload

#: In falling precedence (systemd.unit(5), "System Unit Search Path"): a file hides those of the same name further down.
UNIT_DIRS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
#: Kinds of units that start processes.
_KINDS = (".service", ".socket", ".mount", ".swap")
_WORD = b"CPUAffinity"
#: Bytes of a file that are read, and files that are read.
_SIZE, _FILES = 65536, 8192


class Units:
    """The unit files below these directories."""

    def __init__(self, directories: Sequence[str] = UNIT_DIRS) -> None:
        self._directories = directories
        self._seen: object = None
        self._found: dict[str, frozenset[int]] = {}

    def with_affinity(self) -> dict[str, frozenset[int]]:
        """Return the CPUs of each unit that has CPUAffinity=, by its name.

        A template ("x@.service") is told as such. A file that is edited in place is not noticed until something else
        in its directory changes; editors replace files.
        """
        fragments, drop_ins, seen = self._listed()
        if seen != self._seen:
            self._found = dict(_affinities(fragments, drop_ins))
            self._seen = seen
        return self._found

    def _listed(self) -> tuple[dict[str, str], dict[str, dict[str, str]], object]:
        """Return the unit files in force, the drop-ins in force of each name, and what changes when they do."""
        fragments: dict[str, str] = {}
        drop_ins: dict[str, dict[str, str]] = {}
        seen = []
        for directory in self._directories:
            for name, path in _entries(directory):
                if name.endswith(_KINDS):
                    fragments.setdefault(name, path)
                elif name.endswith(".d"):
                    seen.append((path, _changed(path)))
                    for inner, inside in _entries(path):
                        if inner.endswith(".conf"):
                            drop_ins.setdefault(name.removesuffix(".d"), {}).setdefault(inner, inside)
            seen.append((directory, _changed(directory)))
        return fragments, drop_ins, seen


def _affinities(fragments: dict[str, str], drop_ins: dict[str, dict[str, str]]) -> Iterator[tuple[str, frozenset[int]]]:
    """Read each file once. Only units for which some file has the word are put together."""
    speaking = {name: text for name, path in list(fragments.items())[:_FILES] if _WORD in (text := _read(path))}
    added = {
        name: [text for _, text in sorted((each, _read(path)) for each, path in files.items())]
        for name, files in drop_ins.items()
    }
    added = {name: texts for name, texts in added.items() if any(_WORD in text for text in texts)}
    instances = {name for name in added if name.endswith(_KINDS) and "@" in name}
    names = {*speaking, *instances, *(name for name in fragments if any(each in added for each in _levels(name)))}
    for name in sorted(names):
        texts = [speaking.get(name) or speaking.get(_template(name)) or b""]
        texts += [text for level in _levels(name) for text in added.get(level, ())]
        cpus = workload.cpu_affinity(texts)
        if cpus:
            yield name, cpus


def _levels(name: str) -> list[str]:
    """Return the names whose drop-ins count for a unit, the most general one first (systemd.unit(5))."""
    stem, _, kind = name.rpartition(".")
    parts = stem.split("-")
    prefixes = [f"{'-'.join(parts[:length])}-.{kind}" for length in range(1, len(parts))]
    template = _template(name)
    return [kind, *prefixes, *([template] if template != name else []), name]


def _template(name: str) -> str:
    """Return the template of an instance, else the name itself."""
    stem, _, kind = name.rpartition(".")
    before, at, _ = stem.partition("@")
    return f"{before}@.{kind}" if at else name


def _entries(directory: str) -> list[tuple[str, str]]:
    try:
        return [(name, f"{directory}/{name}") for name in os.listdir(directory)]
    except OSError:  # not there, or gone meanwhile
        return []


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # a link to nowhere, or gone meanwhile
        return b""
    try:
        return os.read(file, _SIZE)
    except OSError:  # a directory
        return b""
    finally:
        os.close(file)
