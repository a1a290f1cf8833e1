# SPDX-License-Identifier: Apache-2.0
"""Programs that use the library: the page's own example, and what it says of errors and holders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import run, stands
from kit.fakes.qemu import FakeVm
from kit.until import DEADLINE
from vcpu_host import (
    Domain,
    Limits,
    Operation,
    Outcome,
    RefusedError,
    Request,
    Target,
    UsageError,
    VmView,
    open_vm,
)
from vcpu_host.documents import of_result

PAGE = Path(__file__).resolve().parents[2] / "docs/library.md"
SOCKET = "/run/vms/web1/qmp.sock"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vl", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _own_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks and records lie beside the fake, as those of the commands do."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


@pytest.fixture
def vm(folder: Path) -> Iterator[FakeVm]:
    with FakeVm(folder, "--maxcpus", "8") as vm:
        yield vm


def block(language: str) -> str:
    """The page's only block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def example(qmp: str) -> str:
    """What the page's example prints for the VM with that monitor."""
    script = block("python")
    assert script.count(SOCKET) == 1
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script.replace(SOCKET, qmp)],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE,
        env=os.environ,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_the_example_of_the_page_prints_what_the_page_says_it_does(vm: FakeVm) -> None:
    assert example(str(vm.qmp)) == block("text")
    stands(vm, {0, 1, 2, 3})


def test_the_example_says_why_it_cannot(folder: Path) -> None:
    assert example(str(folder / "nobody")).startswith("no-such-socket: nobody listens on ")


async def test_a_program_that_has_a_vm_keeps_others_out_and_they_are_told_its_name(vm: FakeVm) -> None:
    async with open_vm(Target(str(vm.qmp)), holder="resize.py of web1"):
        refused = run(vm, "list", monitor="qmp2")
        assert refused.outcome == "vm-busy"
        assert f"{os.getpid()} resize.py of web1" in refused.json["error"]["text"]
        with pytest.raises(RefusedError, match=r"resize\.py of web1"):
            async with open_vm(Target(str(vm.qmp)), patience=0.0):
                pass
    assert run(vm, "list").status == 0


async def test_slots_that_the_vm_does_not_have_are_a_usage_error_of_plan_and_run_alike(vm: FakeVm) -> None:
    request = Request(Operation.PLUG, selectors=("99",))
    async with open_vm(Target(str(vm.qmp))) as opened:
        for call in (opened.plan, opened.run):
            with pytest.raises(UsageError) as error:
                await call(request)
            assert error.value.reason.code == "bad-slot"
    stands(vm, {0})


async def test_results_outlive_the_vm_and_are_the_documents_of_the_command(vm: FakeVm) -> None:
    async with open_vm(Target(str(vm.qmp))) as opened:
        result = await opened.run(Request(Operation.PLUG, 1))
        view = await opened.look()
    assert isinstance(view, VmView)
    assert (result.outcome, view.online_vcpus) == (Outcome.DONE, 2)
    shown = run(vm, "scale", "2").json
    assert {*shown} - {"schema_version"} <= {*of_result(result)}


# --- values that programs give ----------------------------------------------------------------------------------------


async def test_a_path_may_be_any_that_python_has(vm: FakeVm) -> None:
    target = Target(Path(vm.qmp), agent=Path("/a"))
    assert target == Target(str(vm.qmp), "/a")
    async with open_vm(Target(Path(vm.qmp))) as opened:
        assert (await opened.look()).online_vcpus == 1


@pytest.mark.parametrize(
    ("kind", "values", "options", "told"),
    [
        (Target, (None,), {}, "qmp is no path: None"),
        (Target, (b"/a",), {}, "qmp is no path: b'/a'"),
        (Target, (3,), {}, "qmp is no path: 3"),
        (Target, ("",), {}, "qmp is empty"),
        (Target, ("/a\0b",), {}, r"qmp has a NUL character: '/a\\x00b'"),
        (Target, ("/\ud800",), {}, "qmp has a character that cannot be written"),
        (Target, ("/a", ""), {}, "agent is empty"),
        (Target, ("/a", b"/b"), {}, "agent is no path"),
        (Target, ("/a",), {"workload": "junk"}, "workload is 'junk'"),
        (Target, ("/a",), {"workload": None}, "workload is None"),
        (Domain, (None, "web1"), {}, "uri is no text: None"),
        (Domain, ("test:///default", ""), {}, "domain is empty"),
        (Domain, ("test:///default", "a\0"), {}, "domain has a NUL character"),
        (Domain, ("test:///default", "\udcff"), {}, "domain has a character that cannot be written"),
        (Domain, ("test:///default", "web1"), {"monitor": None}, "monitor is None"),
        (Domain, ("test:///default", "web1"), {"workload": "junk"}, "workload is 'junk'"),
    ],
)
def test_what_is_no_vm_is_a_usage_error_at_once(
    kind: Callable[..., object], values: tuple[object, ...], options: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as error:
        kind(*values, **options)
    assert error.value.reason.hint


@pytest.mark.parametrize("target", ["/run/vms/web1/qmp.sock", None, Path("/a")])
async def test_what_is_opened_is_a_target_or_a_domain(target: Any) -> None:
    with pytest.raises(UsageError, match="is no VM"):
        async with open_vm(target):
            pass


@pytest.mark.parametrize("seconds", [float("nan"), -1, 0, "3", True, b"1"])
def test_a_time_limit_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ValueError, match="a time limit is a number of seconds above 0"):
        Limits.within(seconds)


async def test_selectors_may_be_a_list_and_a_request_is_a_value_all_the_same(vm: FakeVm) -> None:
    listed: Any = ["1"]
    request = Request(Operation.PLUG, selectors=listed)
    assert request == Request(Operation.PLUG, selectors=("1",))
    assert len({request, Request(Operation.PLUG, selectors=("1",))}) == 1
    async with open_vm(Target(str(vm.qmp))) as opened:
        assert (await opened.run(request)).outcome is Outcome.DONE
