# SPDX-License-Identifier: Apache-2.0
"""Real executables as hooks, before CPUs of the fake kernel go offline and after they came online."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kit.fakes.sysfs import FakeKernel, firmware_id
from kit.until import DEADLINE, until
from vcpu_guest import logs
from vcpu_guest.core.hook_rules import MAX_WORDS, POST_ONLINE, PRE_OFFLINE
from vcpu_guest.core.model import CpuResult, CpuStatus
from vcpu_guest.core.request import Request
from vcpu_guest.cpus.hooked_writer import HookedWriter
from vcpu_guest.cpus.hooks import Hooks
from vcpu_guest.cpus.inventory import Inventory
from vcpu_guest.cpus.writer import Writer
from vcpu_guest.kernel.sysfs import Sysfs
from vcpu_guest.platforms.acpi import Acpi
from vcpu_guest.rpc import convert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hooks.d"
    for event in (PRE_OFFLINE, POST_ONLINE):
        (folder / f"{event}.d").mkdir(parents=True, mode=0o755)
    return folder


@pytest.fixture
async def hooks(folder: Path) -> AsyncIterator[Hooks]:
    hooks = Hooks(DEADLINE, str(folder), os.getuid())
    yield hooks
    await hooks.close()


@pytest.fixture
async def writer(sysfs: Sysfs, inventory: Inventory) -> AsyncIterator[Writer]:
    writer = Writer(sysfs, Acpi(), inventory)
    yield writer
    assert await writer.close(DEADLINE)


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is logged of hooks that failed after the fact."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "error", lambda event, **fields: found.append({"event": event, **fields}))
    return found


def put(folder: Path, event: str, name: str, script: str, mode: int = 0o755) -> Path:
    path = folder / f"{event}.d" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def online(kernel: FakeKernel, writer: Writer, *slots: int) -> None:
    kernel.online.update(kernel.add(slot) for slot in slots)
    kernel._lists()
    writer.inventory.scan()


async def run(writer: Writer, hooks: Hooks, *slots: int, up: bool = False) -> list[CpuResult]:
    request = Request(tuple(firmware_id(slot) for slot in slots), online=up, wait=False)
    async with asyncio.timeout(DEADLINE):
        return [answer async for answer in HookedWriter(writer, hooks).run(request) if isinstance(answer, CpuResult)]


async def refusal(hooks: Hooks) -> str:
    """The text of the reason for which the hooks keep CPUs 3 and 5."""
    async with asyncio.timeout(DEADLINE):
        reason = await hooks.before_offline([3, 5])
    assert reason is not None
    assert reason.code == "hook-refused"
    return reason.text


async def test_hooks_are_run_in_the_order_of_names_once_a_request_and_told_which_cpus(
    folder: Path, tmp_path: Path, hooks: Hooks, writer: Writer, kernel: FakeKernel
) -> None:
    for name in ("20-b", "10-a"):
        put(folder, PRE_OFFLINE, name, f'echo "{name} $# $1 $2 $VCPUD_EVENT $VCPUD_CPUS" >>{tmp_path}/seen')
    online(kernel, writer, 1, 2, 3)
    results = await run(writer, hooks, 1, 3)
    assert [result.status for result in results] == [CpuStatus.DONE, CpuStatus.DONE]
    words = "2 pre-offline 1,3 pre-offline 1,3"
    assert (tmp_path / "seen").read_text().splitlines() == [f"10-a {words}", f"20-b {words}"]


async def test_a_veto_refuses_every_cpu_of_the_request_in_the_hooks_words_and_nothing_is_written(
    folder: Path, tmp_path: Path, hooks: Hooks, writer: Writer, kernel: FakeKernel
) -> None:
    put(folder, PRE_OFFLINE, "10-no", "echo first; echo 'the database needs them' >&2; exit 3")
    put(folder, PRE_OFFLINE, "20-later", f"touch {tmp_path}/later")
    online(kernel, writer, 1, 2)
    results = await run(writer, hooks, 1, 2)
    assert [result.status for result in results] == [CpuStatus.REFUSED] * 2
    for result in results:
        assert result.reason is not None
        assert result.observed is not None
        assert (result.reason.code, result.observed.online) == ("hook-refused", True)
        assert "10-no (status 3): the database needs them" in result.reason.text
    assert kernel.writes == []
    assert not (tmp_path / "later").exists()


async def test_what_is_offline_already_is_asked_of_nobody(
    folder: Path, hooks: Hooks, writer: Writer, kernel: FakeKernel
) -> None:
    put(folder, PRE_OFFLINE, "no", "exit 1")
    kernel.add(1)
    writer.inventory.scan()
    assert {result.status for result in await run(writer, hooks, 1, 9)} == {CpuStatus.ALREADY, CpuStatus.ABSENT}


async def test_cpus_that_came_online_are_told_afterwards_and_a_failure_changes_no_result(
    folder: Path,
    tmp_path: Path,
    hooks: Hooks,
    writer: Writer,
    kernel: FakeKernel,
    complaints: list[dict[str, Any]],
) -> None:
    put(folder, POST_ONLINE, "10-broken", "echo oh; exit 1")
    put(folder, POST_ONLINE, "20-good", f'cat {kernel.cpu_dir}/online >{tmp_path}/seen; echo "$1 $2" >>{tmp_path}/seen')
    put(folder, PRE_OFFLINE, "10-no", "exit 1")
    for slot in (1, 2):
        kernel.add(slot)
    writer.inventory.scan()
    assert [result.status for result in await run(writer, hooks, 1, 2, up=True)] == [CpuStatus.DONE] * 2
    await until(lambda: not hooks._tasks)
    assert (tmp_path / "seen").read_text().splitlines() == ["0-2", "post-online 1-2"]
    assert [complaint["why"] for complaint in complaints] == ["10-broken (status 1): oh"]


async def test_nothing_is_run_for_cpus_that_did_not_come(
    folder: Path, tmp_path: Path, hooks: Hooks, writer: Writer
) -> None:
    put(folder, POST_ONLINE, "any", f"touch {tmp_path}/seen")
    assert [result.status for result in await run(writer, hooks, 7, up=True)] == [CpuStatus.ABSENT]
    assert not hooks._tasks


async def test_a_hook_that_takes_too_long_is_killed_with_all_that_it_started_and_refuses(
    folder: Path, tmp_path: Path
) -> None:
    hooks = Hooks(0.5, str(folder), os.getuid())
    script = f"sleep 600 & echo $! >{tmp_path}/child; echo waiting; wait"
    put(folder, PRE_OFFLINE, "slow", script)
    assert "slow (killed: not done within 0.5 s): waiting" in await refusal(hooks)
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    await until(lambda: not child.exists() or child.read_text().split()[2] == "Z")
    await hooks.close()


async def test_what_a_hook_leaves_behind_is_killed_and_not_waited_for(
    folder: Path, tmp_path: Path, hooks: Hooks
) -> None:
    put(folder, PRE_OFFLINE, "quick", f"sleep 600 & echo $! >{tmp_path}/child")
    async with asyncio.timeout(DEADLINE / 2):
        assert await hooks.before_offline([3]) is None
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    await until(lambda: not child.exists() or child.read_text().split()[2] == "Z")


async def test_the_agents_end_kills_the_hook_that_runs(folder: Path, tmp_path: Path) -> None:
    hooks = Hooks(600, str(folder), os.getuid())
    put(folder, PRE_OFFLINE, "slow", f"touch {tmp_path}/began; exec sleep 600")
    asking = asyncio.create_task(hooks.before_offline([3]))
    await until((tmp_path / "began").exists)
    async with asyncio.timeout(DEADLINE / 2):
        await hooks.close()
        reason = await asking
    assert reason is not None
    assert "killed: the agent ends" in reason.text


async def test_a_request_that_is_given_up_starts_no_further_hook(folder: Path, tmp_path: Path, hooks: Hooks) -> None:
    put(folder, PRE_OFFLINE, "10-first", f"touch {tmp_path}/began; until [ -e {tmp_path}/go ]; do :; done")
    put(folder, PRE_OFFLINE, "20-second", f"touch {tmp_path}/second")
    asking = asyncio.create_task(hooks.before_offline([3]))
    await until((tmp_path / "began").exists)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (tmp_path / "go").touch()
    (folder / "pre-offline.d/10-first").unlink()
    (folder / "pre-offline.d/20-second").unlink()
    assert await hooks.before_offline([3]) is None  # the one thread has done all that was asked of it before
    assert not (tmp_path / "second").exists()


async def test_words_are_the_last_line_bounded_and_without_control_characters(folder: Path, hooks: Hooks) -> None:
    put(folder, PRE_OFFLINE, "loud", r"yes no | head -c 300000; printf '\n\033[31mbusy\007 %0500d\n\n' 7; exit 1")
    text = await refusal(hooks)
    assert "\x1b" not in text
    assert "\x07" not in text
    said = text.partition("): ")[2].partition(";")[0]
    assert said.startswith("[31mbusy 000")
    assert len(said) == MAX_WORDS
    assert said.endswith("000...")


async def test_a_veto_with_many_cpus_and_many_words_still_ends_with_what_to_do(folder: Path, hooks: Hooks) -> None:
    put(folder, PRE_OFFLINE, "a" * 255, r"printf '%0500d' 7 | tr 0 'ð'; exit 1")
    reason = await hooks.before_offline(range(1, 480, 2))
    assert reason is not None
    assert "CPUs 1, 3, 5 and 237 more go offline" in reason.text
    assert convert.reason(reason).text.endswith("who put it into /etc/vcpud/hooks.d")


async def test_a_signal_is_a_veto_too(folder: Path, hooks: Hooks) -> None:
    put(folder, PRE_OFFLINE, "shot", "kill -TERM $$")
    assert "shot (signal 15)" in await refusal(hooks)


async def test_what_cannot_be_run_refuses_and_says_why(folder: Path, hooks: Hooks) -> None:
    put(folder, PRE_OFFLINE, "odd", "").write_text("no interpreter\n")
    assert "odd (cannot be run: Exec format error)" in await refusal(hooks)


@pytest.mark.parametrize("mode", [0o775, 0o757])
async def test_a_hook_that_others_may_write_is_never_run_and_refuses(
    folder: Path, tmp_path: Path, hooks: Hooks, mode: int
) -> None:
    put(folder, PRE_OFFLINE, "open", f"touch {tmp_path}/ran", mode)
    assert "open (not run: others than its owner may write to it: chmod go-w)" in await refusal(hooks)
    assert not (tmp_path / "ran").exists()


async def test_a_hook_of_another_user_is_never_run_and_refuses(folder: Path, tmp_path: Path) -> None:
    put(folder, PRE_OFFLINE, "theirs", f"touch {tmp_path}/ran")
    hooks = Hooks(DEADLINE, str(folder), os.getuid() + 1)
    assert f"it belongs to user {os.getuid()}: chown root" in await refusal(hooks)
    assert not (tmp_path / "ran").exists()
    await hooks.close()


async def test_a_link_is_never_followed_and_refuses(folder: Path, tmp_path: Path, hooks: Hooks) -> None:
    path = put(folder, PRE_OFFLINE, "real", f"touch {tmp_path}/ran")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in await refusal(hooks)
    assert not (tmp_path / "ran").exists()


async def test_a_directory_that_others_may_write_is_not_trusted(folder: Path, tmp_path: Path, hooks: Hooks) -> None:
    put(folder, PRE_OFFLINE, "fine", f"touch {tmp_path}/ran")
    (folder / "pre-offline.d").chmod(0o777)
    assert "pre-offline.d (not run: others than its owner may write to it" in await refusal(hooks)
    assert not (tmp_path / "ran").exists()


async def test_an_untrusted_hook_after_an_online_is_logged_and_not_run(
    folder: Path, tmp_path: Path, hooks: Hooks, complaints: list[dict[str, Any]]
) -> None:
    put(folder, POST_ONLINE, "open", f"touch {tmp_path}/ran", 0o777)
    hooks.after_online([1])
    await until(lambda: not hooks._tasks)
    assert "chmod go-w" in complaints[0]["why"]
    assert not (tmp_path / "ran").exists()


async def test_what_is_no_hook_by_its_name_or_not_executable_is_left_out(
    folder: Path, tmp_path: Path, hooks: Hooks
) -> None:
    put(folder, PRE_OFFLINE, "a.dpkg-old", f"touch {tmp_path}/ran; exit 1")
    put(folder, PRE_OFFLINE, "off", f"touch {tmp_path}/ran; exit 1", 0o644)
    assert await hooks.before_offline([3]) is None
    assert not (tmp_path / "ran").exists()


async def test_no_directory_means_no_hooks(tmp_path: Path) -> None:
    hooks = Hooks(DEADLINE, str(tmp_path / "none"), os.getuid())
    assert await hooks.before_offline([3]) is None
    await hooks.close()
