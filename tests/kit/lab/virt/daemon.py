# SPDX-License-Identifier: Apache-2.0
"""libvirtd in a host of the lab: started, stopped, killed, without systemd."""

from __future__ import annotations

import os
import select
import signal
import socket

from kit.lab.errors import LabError
from kit.lab.virt.ground import Begun, Ground

#: Seconds for its start and its end, on a busy machine.
_SOON = 120.0


class Daemon:
    """The host's libvirtd. It ends with the host."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._process: Begun | None = None
        self.log = ground.folder / "libvirtd.said"

    @property
    def pid(self) -> int:
        """Its process, as this machine numbers it. Raises LabError if it does not run."""
        if self._process is None:
            raise LabError("libvirtd does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it says, as it would to systemd (sd_notify(3)), that it serves.

        Raises LabError with its last words if it ends instead, or does not come to that.
        """
        if self._process is not None:
            raise LabError("libvirtd runs already")
        path = self._ground.folder / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(path))
            begun = self._ground.begin(["libvirtd", "--listen"], self.log, {"NOTIFY_SOCKET": str(path)})
            ended = begun.end()
            try:
                ready, _, _ = select.select([notified.fileno(), ended], [], [], _SOON)
                if notified.fileno() not in ready or b"READY=1" not in notified.recv(4096):
                    words = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                    raise LabError(f"libvirtd does not come up (status {begun.poll()}):\n{words}")
            finally:
                os.close(ended)
        self._process = begun

    def stop(self) -> None:
        """Have it end in good order; its VMs go on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; its VMs go on."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        assert self._process is not None
        self._process.wait(_SOON)
        self._process = None
