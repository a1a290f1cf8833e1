# SPDX-License-Identifier: Apache-2.0
"""Reads systemd's unit files for CPUAffinity=, the one setting with which a unit cannot start on other CPUs.

systemd itself is not asked: a question over D-Bus for each unit costs more than reading the few hundred files, whose
directories are read again only when one of them has changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

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


#: Drop-ins of one name ("x.service" for "x.service.d"): by the place of their directory, the paths by their names.
_DropIns = dict[str, dict[int, dict[str, str]]]


class Units:
    """The unit files below these directories."""

    def __init__(self, directories: Sequence[str] = UNIT_DIRS) -> None:
        self._directories = directories
        self._seen: object = None
        self._files = _Files({}, {}, 0)
        self._found: dict[str, frozenset[int]] = {}

    def with_affinity(self, running: Callable[[], Iterable[str]] = tuple) -> dict[str, frozenset[int]]:
        """Return the CPUs of each unit that has CPUAffinity=, by its name.

        A template ("x@.service") is told as such. If its CPUs follow from the instance's name, the instances are told
        that are among `running`, which is asked for nothing else. A file that is edited in place is not noticed until
        something else in its directory changes; editors replace files.
        """
        fragments, drop_ins, seen = self._listed()
        if seen != self._seen:
            self._files = _Files(fragments, drop_ins, len(self._directories))
            self._found = dict(self._files.affinities())
            self._seen = seen
        if not self._files.by_instance:
            return self._found
        instances = {name for name in running() if _template(name) in self._files.by_instance} - self._found.keys()
        cpus = {name: self._files.affinity(name) for name in sorted(instances)[:_FILES]}
        return {**self._found, **{name: own for name, own in cpus.items() if own}}

    def _listed(self) -> tuple[dict[str, str], _DropIns, object]:
        """Return the unit files in force, all drop-ins, and what changes when they do."""
        fragments: dict[str, str] = {}
        drop_ins: _DropIns = {}
        seen = []
        for place, directory in enumerate(self._directories):
            for name, path in _entries(directory):
                if name.endswith(_KINDS):
                    fragments.setdefault(name, path)
                elif name.endswith(".d"):
                    seen.append((path, _changed(path)))
                    inside = {inner: within for inner, within in _entries(path) if inner.endswith(".conf")}
                    drop_ins.setdefault(name.removesuffix(".d"), {})[place] = inside
            seen.append((directory, _changed(directory)))
        return fragments, drop_ins, seen


class _Files:
    """What these files say of CPUs. Each is read once, and only those that count for a unit."""

    def __init__(self, fragments: dict[str, str], drop_ins: _DropIns, places: int) -> None:
        self._fragments = fragments
        self._drop_ins = drop_ins
        self._places = places
        self._texts: dict[str, bytes] = {}
        #: The templates whose CPUs follow from the instance's name.
        self.by_instance: frozenset[str] = frozenset()

    def affinities(self) -> Iterator[tuple[str, frozenset[int]]]:
        """Yield the units that have CPUs, and fill `by_instance`."""
        named = {name for name in self._drop_ins if name.endswith(_KINDS) and "@" in name}
        templates = set()
        for name in sorted(named.union(self._fragments)):
            cpus = self.affinity(name)
            if cpus:
                yield name, cpus
            if _template(name) == name and "@" in name and any(b"%" in text for text in self._speaking(name)):
                templates.add(name)
        self.by_instance = frozenset(templates)

    def affinity(self, name: str) -> frozenset[int]:
        """Return the CPUs of one unit."""
        instance = name.rpartition(".")[0].partition("@")[2]
        return workload.cpu_affinity(self._speaking(name), instance)

    def _speaking(self, name: str) -> list[bytes]:
        """Return what the unit's files say that have the word, in the order in which they count."""
        fragment = self._fragments.get(name) or self._fragments.get(_template(name))
        paths = ([fragment] if fragment else []) + self._in_force(name)
        texts = [text for path in paths if _WORD in (text := self._text(path))]
        return [] if texts and fragment and os.path.realpath(fragment) == os.devnull else texts  # masked

    def _in_force(self, name: str) -> list[str]:
        """Return the paths of a unit's drop-ins in their order (systemd.unit(5); systemd's src/shared/dropin.c).

        They are sorted by their names, wherever they lie. Of those that are named alike the one counts whose directory
        comes first, and there that of the more special name; what is for all units of a kind comes last of all.
        """
        levels = [level for level in dict.fromkeys(_levels(name)) if level in self._drop_ins]
        kind = self._drop_ins.get(name.rpartition(".")[2], {})
        found: dict[str, str] = {}
        for place in range(self._places):
            for level in levels:
                found = {**self._drop_ins[level].get(place, {}), **found}
        for place in range(self._places):
            found = {**kind.get(place, {}), **found}
        return [path for _, path in sorted(found.items())]

    def _text(self, path: str) -> bytes:
        text = self._texts.get(path)
        if text is None:
            # Of the many files without the word nothing is kept.
            read = _read(path) if len(self._texts) < _FILES else b""
            text = self._texts[path] = read if _WORD in read else b""
        return text


def _levels(name: str) -> list[str]:
    """Return the names whose drop-ins count for a unit, the most special one first, without that of its kind."""
    stem, _, kind = name.rpartition(".")
    prefix, at, instance = stem.partition("@")
    found = [name]
    if instance:
        found += _levels(f"{prefix}@.{kind}")
    shorter, _, _ = prefix.removesuffix("-").rpartition("-")
    if shorter:
        found += _levels(f"{shorter}-{at + instance if instance else ''}.{kind}")
    return found


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
