# SPDX-License-Identifier: Apache-2.0
"""The load of a fake guest: counters that go on as the file beside its sysfs says, for as many CPUs as are online."""

from __future__ import annotations

import json
import time
from pathlib import Path

from vcpu_guest.core.load import CpuTimes, Load
from vcpu_guest.kernel.sysfs import Sysfs

#: The guest booted so long ago, in seconds.
UPTIME = 3600.0


class FakeLoad:
    """A source of load. The file "load" beside the root of sysfs has {"threads": N, "steal": share, "psi": bool}.

    Without the file nothing runs. ``threads`` compute without end: as many of them run as CPUs are online.
    """

    descriptor = None

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self._file = Path(sysfs.root).parent / "load"
        self._began = self._at = time.monotonic()
        self._pressure = 0.0
        self._times: dict[int, list[float]] = {}

    def read(self) -> Load:
        """See LoadSource."""
        said = json.loads(self._file.read_text()) if self._file.exists() else {}
        threads, steal = float(said.get("threads", 0)), float(said.get("steal", 0))
        now = time.monotonic()
        passed, self._at = now - self._at, now
        online = sorted(self._sysfs.mask("online"))
        running = min(threads, float(len(online)))
        waiting = threads - running
        self._pressure += passed if waiting > 0 else 0.0
        for number in online:
            times = self._times.setdefault(number, [0.0, 0.0, 0.0, 0.0])
            times[0] += running / len(online) * (1 - steal) * passed
            times[1] += running / len(online) * steal * passed
            times[2] += waiting / len(online) * passed
            times[3] += (1 - running / len(online)) * passed
        cpus = []
        for number in online:
            busy, stolen, waited, idle = (int(1e6 * seconds) for seconds in self._times[number])
            cpus.append(CpuTimes(number, busy, stolen, 0, idle, waited))
        pressure = int(1e6 * self._pressure) if said.get("psi", True) else None
        return Load(now - self._began + UPTIME, tuple(cpus), round(threads), pressure, 0)

    def quiet(self) -> None:
        """See LoadSource."""

    def close(self) -> None:
        """See LoadSource."""
