# SPDX-License-Identifier: Apache-2.0
"""Reads what in the guest bears on CPU hotplug: for Hello, and through it for `vcpuctl doctor`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vcpu_guest.core import cmdline
from vcpu_guest.core.model import Environment
from vcpu_guest.core.reasons import denial
from vcpu_guest.kernel import procfs
from vcpu_guest.kernel.cgroupfs import Cgroups
from vcpu_guest.kernel.gpes import Gpes
from vcpu_guest.kernel.sysfs import Sysfs

#: In falling precedence (udev(7)): a file hides those of the same name in later directories.
RULE_DIRS = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)

_SUBSYSTEM = re.compile(r'SUBSYSTEMS?=="[^"]*\bcpu\b[^"]*"')
_ONLINES = re.compile(r'ATTR\{(?:\[[^\]]*\])?online\}="1"|RUN(?:\{\w+\})?\+?="[^"]*\bonline\b[^"]*"')


class EnvironmentReader:
    """Reads the environment. It reads the udev rules again only when one of their directories has changed."""

    def __init__(
        self,
        sysfs: Sysfs,
        hypervisor_flag: Callable[[Sysfs], bool | None],
        rule_dirs: Sequence[str | Path] = RULE_DIRS,
        command_line: Callable[[], str] = procfs.command_line,
        denials: Callable[[], tuple[str, ...]] = tuple,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`hypervisor_flag` asks the platform whether the CPUs say that they are a hypervisor's.

        `denials` lists further files that the agent has to write and may not, in the form of `reasons.denial`. With
        `pause` tests take no time.
        """
        self._sysfs = sysfs
        self._cgroups = Cgroups(sysfs)
        self._unhandled_gpes = Gpes(sysfs, pause)
        self._hypervisor_flag = hypervisor_flag
        self._rule_dirs = rule_dirs
        self._command_line = command_line
        self._denials = denials
        self._rules: tuple[str, ...] = ()
        self._seen: list[int] | None = None

    def __call__(self) -> Environment:
        """Read a few small files and, the first time, some dozen rules: may block for milliseconds.

        For a second if ACPI has an event pending: see `Gpes`.
        """
        sysfs = self._sysfs
        tried = sysfs.switching_denied()
        unwritable = (*(() if tried is None else denial(*tried)), *self._denials())
        kernel_max = sysfs.read("devices/system/cpu/kernel_max") or ""
        return Environment(
            possible=sysfs.read("devices/system/cpu/possible") or "",
            isolated=_list(sysfs.read("devices/system/cpu/isolated")),
            nohz_full=_list(sysfs.read("devices/system/cpu/nohz_full")),
            kernel_max=int(kernel_max) if kernel_max.isdigit() else 0,
            smt_control=sysfs.smt_control(),
            auto_online_rules=self._auto_online_rules(),
            eject_enabled=sysfs.eject_enabled(),
            clocksource=sysfs.read("devices/system/clocksource/clocksource0/current_clocksource") or "",
            kernel_arguments=cmdline.bearing_on_cpus(self._command_line()),
            hypervisor_flag=self._hypervisor_flag(sysfs),
            acpi=sysfs.acpi(),
            writable=False if unwritable else None if tried is None else True,
            unwritable=unwritable,
            partition_isolated=self._cgroups.isolated(),
            unhandled_gpes=self._unhandled_gpes(),
        )

    def _auto_online_rules(self) -> tuple[str, ...]:
        # A file that is edited in place is not noticed until the agent starts again; editors replace files.
        seen = [_changed(directory) for directory in self._rule_dirs]
        if seen != self._seen:
            self._rules = auto_online_rules(self._rule_dirs)
            self._seen = seen
        return self._rules


def auto_online_rules(rule_dirs: Sequence[str | Path] = RULE_DIRS) -> tuple[str, ...]:
    """Return the udev rules files in force that bring CPUs online."""
    in_force: dict[str, str] = {}
    for directory in rule_dirs:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            if name.endswith(".rules"):
                in_force.setdefault(name, os.path.join(directory, name))
    return tuple(path for _, path in sorted(in_force.items()) if _onlines(path))


def _changed(directory: str | Path) -> int:
    try:
        return os.stat(directory).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _onlines(path: str) -> bool:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:  # removed meanwhile, or a link to nowhere: no rule in force
        return False
    if "online" not in text:  # most rules: to look at each of their lines takes an emulated guest long
        return False
    lines = text.replace("\\\n", " ").splitlines()
    rules = (line for line in lines if not line.lstrip().startswith("#"))
    return any(_SUBSYSTEM.search(line) and _ONLINES.search(line) for line in rules)


def _list(text: str | None) -> str:
    return "" if text in {None, "(null)"} else str(text)
