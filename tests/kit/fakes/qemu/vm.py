# SPDX-License-Identifier: Apache-2.0
"""A VM for component tests: the bridged fake in one process, a real ``vcpud`` in another, no machine anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from kit.fakes.qemu.process import FakeProcess

_VCPUD = Path(__file__).resolve().parents[1] / "vcpud.py"
_TESTS = Path(__file__).resolve().parents[3]


class FakeVm(FakeProcess):
    """``with FakeVm(folder, "--maxcpus", "16") as vm``: ``vm.qmp`` and ``vm.agent`` are for vcpuctl.

    ``folder`` must be a short path; if it has a vcpud.conf, that is the agent's. The agent runs unless ``agent=False``;
    its log is ``folder/vcpud.log``.
    ``vm.steer`` says what shall go wrong in QEMU, the commands ``x-fake-kernel...`` what in the guest.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        agent: bool = True,
        python: str = sys.executable,
        apart: bool = False,
        inside: Path | None = None,
        words: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, "--bridge", "on", *options, apart=apart, inside=inside, words=words)
        self._agent_wanted = agent
        self._python = python
        self._boot_id = str(uuid.uuid4())
        self._log: IO[bytes] | None = None
        self.vcpud: subprocess.Popen[bytes] | None = None

    @property
    def agent(self) -> Path:
        """The agent port's socket."""
        return self.folder / "port.host"

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            if self._agent_wanted:
                self.start_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill_agent()
        if self._log is not None:
            self._log.close()
        super().__exit__(*exc)

    def start_agent(self, *, wait: bool = True) -> None:
        """Start ``vcpud``; return when it has the port open, unless told otherwise."""
        if self._log is None:
            self._log = (self.folder / "vcpud.log").open("ab")
        places = ("--kernel", "kernel"), ("--sysfs", "sys"), ("--port", "port.guest")
        runtime = self.folder / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        words = [word for name, file in places for word in (name, str(self.folder / file))]
        if (config := self.folder / "vcpud.conf").exists():
            words += ["--config", str(config)]
        self.vcpud = subprocess.Popen(
            [self._python, str(_VCPUD), *words],
            env={
                **os.environ,
                "PYTHONPATH": str(_TESTS),
                "VCPUD_BOOT_ID": self._boot_id,
                "RUNTIME_DIRECTORY": str(runtime),
            },
            stdout=self._log,
            stderr=self._log,
        )
        if wait:
            self.wait_port(is_open=True)

    def wait_port(self, *, is_open: bool) -> None:
        """Wait until the guest has the port open, or closed."""
        self.steer.call("x-fake-port-wait", open=is_open)

    def kill_agent(self, signal: int = 9) -> None:
        """End ``vcpud`` by a signal, and wait for its end."""
        if self.vcpud is not None:
            self.vcpud.send_signal(signal)
            self.vcpud.wait(10)
            self.vcpud = None

    def reboot(self, *, agent: bool = True) -> None:
        """The guest restarts: the agent is gone at once, a new kernel finds the CPUs, a new agent starts."""
        self.kill_agent()
        self._boot_id = str(uuid.uuid4())
        self.steer.call("x-fake-guest-reset")
        if agent:
            self.start_agent()

    def guest_cpus(self) -> Mapping[int, bool]:
        """Slot to online, as the fake kernel has it (not as the agent says)."""
        cpus: Mapping[str, Mapping[str, Any]] = self.steer.call("x-fake-kernel")["cpus"]
        return {int(cpu["slot"]): bool(cpu["online"]) for cpu in cpus.values()}

    def writes(self) -> list[tuple[int, bool]]:
        """Every write of the agent: guest CPU number, online."""
        return [(number, goal) for number, goal in self.steer.call("x-fake-kernel")["writes"]]
