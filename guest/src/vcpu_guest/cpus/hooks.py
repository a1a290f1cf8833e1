# SPDX-License-Identifier: Apache-2.0
"""Runs the administrator's hooks: before CPUs go offline, with a veto, and after they came online. Opt-in.

The host decides neither whether a hook runs nor which: it names CPUs, and the files in /etc/vcpud/hooks.d belong to the
guest. Hooks run one at a time, in a thread, without a shell, each with a time limit. When a hook ends, everything that
it left in its process group is killed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

from vcpu_guest import logs
from vcpu_guest.core import cpulist
from vcpu_guest.core import hook_rules as rules
from vcpu_guest.core.hook_rules import POST_ONLINE, PRE_OFFLINE, Ended
from vcpu_guest.core.model import Reason

DIRECTORY = "/etc/vcpud/hooks.d"
#: How many bytes of a hook's output are kept (its last ones), and how many are read at once (what a pipe holds).
KEPT, PIPE = 4096, 65536
#: Seconds within which a killed hook has to be gone.
KILLED = 5.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Hooks:
    """The hooks of one directory. `timeout` is in seconds, for each hook; only files of the user `owner` are run."""

    def __init__(self, timeout: float, directory: str = DIRECTORY, owner: int = 0) -> None:
        self._timeout = timeout
        self._directory = directory
        self._owner = owner
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hooks")
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._tasks: set[asyncio.Task[None]] = set()

    async def before_offline(self, numbers: Iterable[int]) -> Reason | None:
        """Ask whether these CPUs may go offline. Return the objection of the first hook that has one, else None."""
        cpus = cpulist.render(numbers)
        async with aclosing(self._run_all(PRE_OFFLINE, cpus)) as ends:
            async for ended in ends:
                reason = rules.veto(ended, cpus)
                if reason is not None:
                    logs.warning("a hook refused", hook_event=PRE_OFFLINE, cpus=cpus, why=rules.failure(ended))
                    return reason
        return None

    def after_online(self, numbers: Iterable[int]) -> None:
        """Run the hooks for CPUs that came online, in the background; return at once."""
        task = asyncio.get_running_loop().create_task(self._tell(cpulist.render(numbers)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Start no further hook, and kill the one that runs."""
        os.eventfd_write(self._stop, 1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)
        os.close(self._stop)

    async def _tell(self, cpus: str) -> None:
        async with aclosing(self._run_all(POST_ONLINE, cpus)) as ends:
            async for ended in ends:
                problem = rules.failure(ended)
                if problem:
                    logs.error("a hook failed", hook_event=POST_ONLINE, cpus=cpus, why=problem)

    async def _run_all(self, event: str, cpus: str) -> AsyncGenerator[Ended, None]:
        """Run the hooks one after another, and yield how each ended. Closing the generator starts no further one."""
        loop = asyncio.get_running_loop()
        listed = await loop.run_in_executor(self._executor, self._list, event)
        if isinstance(listed, Ended):
            yield listed
            return
        for name in listed:
            yield await loop.run_in_executor(self._executor, partial(self._run, event, name, cpus))

    def _list(self, event: str) -> tuple[str, ...] | Ended:
        """Return the hooks' names, or why the directory is not trusted. Without a directory there are no hooks."""
        path = f"{self._directory}/{event}.d"
        try:
            for part in (self._directory, path):
                status = os.lstat(part)
                why = rules.objection(status.st_mode, status.st_uid, self._owner)
                if why:
                    return Ended(part, f"not run: {why}")
            names = os.listdir(path)
        except FileNotFoundError:
            return ()
        except OSError as error:
            return Ended(path, f"cannot be read: {error.strerror}")
        chosen = rules.order(names)
        if len(chosen) < len(names):
            logs.info(
                "files whose names are not those of hooks", directory=path, names=sorted(set(names) - set(chosen))
            )
        return chosen

    def _run(self, event: str, name: str, cpus: str) -> Ended:
        path = f"{self._directory}/{event}.d/{name}"
        try:
            status = os.lstat(path)
            why = rules.objection(status.st_mode, status.st_uid, self._owner)
            if why:
                return Ended(name, f"not run: {why}")
            if stat.S_ISDIR(status.st_mode) or not status.st_mode & 0o111:
                return Ended(name)  # as with run-parts: no hook, or one that was switched off
            logs.debug("hook", hook_event=event, name=name, cpus=cpus)
            output, written = os.pipe()
            with open(output, "rb", buffering=0) as stdout:
                try:
                    process = _start(path, event, cpus, written)
                finally:
                    os.close(written)
                return self._follow(name, process, stdout.fileno())
        except OSError as error:
            return Ended(name, f"cannot be run: {error.strerror}")

    def _follow(self, name: str, process: subprocess.Popen[bytes], stdout: int) -> Ended:
        """Wait until the hook ends, and kill it if its time is over or the agent ends."""
        output, deadline, problem = b"", time.monotonic() + self._timeout, ""
        pidfd = os.pidfd_open(process.pid)
        try:
            watched = [pidfd, self._stop, stdout]
            while True:
                ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
                if stdout in ready:
                    data = os.read(stdout, PIPE)
                    output = (output + data)[-KEPT:]
                    if not data:
                        watched.remove(stdout)
                if pidfd in ready:
                    break
                if self._stop in ready:
                    problem = "killed: the agent ends"
                    break
                if time.monotonic() >= deadline:
                    problem = f"killed: not done within {self._timeout:g} s"
                    break
        finally:
            # The process is not reaped yet, so no other one can have its number.
            _kill_group(process.pid)
            os.close(pidfd)
        try:
            return Ended(name, problem, process.wait(KILLED), output)
        except subprocess.TimeoutExpired:
            return Ended(name, f"{problem}, and is still there", output=output)


def _start(path: str, event: str, cpus: str, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [path, event, cpus],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PATH": _PATH, "VCPUD_EVENT": event, "VCPUD_CPUS": cpus},
        start_new_session=True,
    )


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # nobody is left
        return
