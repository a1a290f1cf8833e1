# SPDX-License-Identifier: Apache-2.0
"""Many fake VMs, each with its file in a vms.d of their own.

Each is what ``FakeVm`` is: a process that is its QEMU, and one that is its agent. But one process has loaded all that
they need, and forks them, so that a VM takes some milliseconds and some megabytes:

    python -m kit.fakes.fleet          (a line of JSON says which VMs; it answers with their processes; EOF ends all)
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from kit.fakes.qemu import FakeVm, Steer
from vcpu_proto.lean import without

_TESTS = Path(__file__).resolve().parents[2]
#: What the processes would load by themselves, each of them.
_NEEDED = (
    "kit.fakes.qemu.bridge",
    "kit.fakes.vcpud",
    "structlog.dev",
    "vcpu_guest.daemon",
    "vcpu_guest.rpc.service",
)


class FleetVm(FakeVm):
    """One of them: ``pid`` is its QEMU's process, ``agent_pid`` its agent's, if it has one."""

    def __init__(self, folder: Path, pid: int, agent_pid: int | None) -> None:
        super().__init__(folder)
        self.pid = pid
        self.agent_pid = agent_pid
        self.steer = Steer(folder / "steer")


class FakeFleet:
    """``vms`` by name. ``environment`` has vcpuctl find them, and, unless it is root, keep locks and records apart."""

    def __init__(self, folder: Path, vms: Mapping[str, FleetVm]) -> None:
        self.folder = folder
        self.vms = vms
        self._files = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a vcpuctl gets."""
        return {**os.environ, "XDG_CONFIG_HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}

    def goals(self, vcpus: Mapping[str, int] | int) -> Path:
        """Return a file for apply: each VM's number, or one number for all."""
        wanted = dict.fromkeys(self.vms, vcpus) if isinstance(vcpus, int) else vcpus
        self._files += 1
        path = self.folder / f"goals{self._files}.toml"
        path.write_text("[vms]\n" + "".join(f"{name} = {number}\n" for name, number in wanted.items()))
        return path


@contextmanager
def fake_fleet(
    folder: Path, names: Sequence[str], *options: str, without_agent: Collection[str] = ()
) -> Iterator[FakeFleet]:
    """Start a VM for each name, with these options; those ``without_agent`` have none. ``folder`` is a short path."""
    vms_d = folder / "vcpuctl/vms.d"
    vms_d.mkdir(parents=True)
    wanted = []
    for place, name in enumerate(names):
        home = folder / str(place)
        (home / "run").mkdir(mode=0o700, parents=True)
        (vms_d / f"{name}.toml").write_text(f'qmp = "{home / "qmp"}"\n')
        wanted.append({"folder": str(home), "agent": name not in without_agent, "options": options})
    process = subprocess.Popen(
        [sys.executable, "-m", "kit.fakes.fleet"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with ExitStack() as ends:
        ends.callback(process.wait, 30)
        ends.callback(process.stdout.close)
        ends.callback(process.stdin.close)
        process.stdin.write(json.dumps(wanted) + "\n")
        process.stdin.flush()
        started = json.loads(process.stdout.readline())
        vms = {}
        for name, there, (pid, agent_pid) in zip(names, wanted, started, strict=True):
            vms[name] = FleetVm(Path(str(there["folder"])), pid, agent_pid)
            ends.callback(vms[name].steer.close)
        for name, vm in vms.items():
            if name not in without_agent:
                vm.wait_port(is_open=True)
        yield FakeFleet(folder, vms)


# --- the process that forks them --------------------------------------------------------------------------------------


class _Children:
    """The processes that were forked here, and have not ended yet."""

    def __init__(self) -> None:
        self._alive: set[int] = set()
        signal.signal(signal.SIGCHLD, lambda number, frame: self._reap())

    def fork(self, run: Callable[[], object]) -> int:
        """Have a child do this, and return its process id."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run()
                status = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(status)
        self._alive.add(pid)
        return pid

    def _reap(self) -> None:
        """Who has ended is to be gone, as a QEMU is."""
        while self._alive:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # the next signal came in the middle, and its call has reaped the last one
                return
            if pid == 0:
                return
            self._alive.discard(pid)

    def end(self) -> None:
        """Kill those that are left."""
        for pid in list(self._alive):
            with suppress(ProcessLookupError):  # it has been reaped meanwhile
                os.kill(pid, signal.SIGKILL)
        while self._alive:
            signal.sigtimedwait((), 0.01)  # it may have been reaped right before this


def _qemu(folder: Path, options: Sequence[str], ready: int) -> None:
    """Be the QEMU; ``ready`` is a descriptor that gets the word."""
    from kit.fakes.qemu.__main__ import build_parser, serve
    from kit.fakes.qemu.config import Config

    os.dup2(ready, 1)
    settings = vars(build_parser().parse_args(["--dir", str(folder), *options]))
    del settings["dir"], settings["bridge"]
    asyncio.run(serve(folder, Config(**settings), bridge=True))


def _vcpud(folder: Path) -> None:
    """Be the agent."""
    from kit.fakes.vcpud import run

    log = os.open(folder / "vcpud.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(VCPUD_BOOT_ID=str(uuid.uuid4()), RUNTIME_DIRECTORY=str(folder / "run"))
    places = ("--kernel", "kernel"), ("--sysfs", "sys"), ("--port", "port.guest")
    run([word for name, file in places for word in (name, str(folder / file))])


def _load() -> None:
    """Load what all of them need, once."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # before gRPC is loaded; nothing of it runs yet when it is forked
    with without("rich"):  # as the agent has it (vcpu_guest/logs.py)
        for module in _NEEDED:
            import_module(module)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Start the VMs that stdin names, and end them with it."""
    wanted: list[dict[str, Any]] = json.loads(sys.stdin.readline())
    _load()
    children = _Children()
    try:
        begun = []
        for vm in wanted:
            ready, told = os.pipe()
            folder = Path(vm["folder"])
            begun.append((children.fork(partial(_qemu, folder, vm["options"], told)), ready))
            os.close(told)
        started = []
        for vm, (pid, ready) in zip(wanted, begun, strict=True):
            with open(ready, "rb") as words:
                if words.readline() != b"ready\n":
                    raise RuntimeError(f"the fake in {vm['folder']} did not start")
            agent = children.fork(partial(_vcpud, Path(vm["folder"]))) if vm["agent"] else None
            started.append((pid, agent))
        print(json.dumps(started), flush=True)
        sys.stdin.read()
    finally:
        children.end()


if __name__ == "__main__":
    main()
