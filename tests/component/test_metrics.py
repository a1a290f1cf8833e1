# SPDX-License-Identifier: Apache-2.0
"""Metrics before Debian's Prometheus and its promtool, made of what the real ``vcpuctl`` prints.

`make test-oldest` runs this with the oldest prometheus_client, `make component` with the newest.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import SOON, done, run, until
from kit.component.prometheus import Prometheus, check_alerts, check_expressions, check_metrics, free_port, programs
from kit.component.serving import Serving
from kit.dashboard_queries import DASHBOARD, load, queries
from kit.fakes.qemu import FakeVm
from vcpu_host.autoscale.decision import Check, Decision, Verdict
from vcpu_host.autoscale.window import Averages
from vcpu_host.core import codes
from vcpu_host.service.exposition import Address, Exposition
from vcpu_host.service.metrics import Metrics
from vcpu_host.service.textfile import Textfile, textfile


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Path]:
    with programs() as found:
        yield found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vm", dir="/tmp") as name:
        yield Path(name)


def _seen(metrics: Metrics, vm: FakeVm, *words: str) -> None:
    """Run a command on the VM, and hand the document that it prints to the metrics."""
    document = json.loads(run(vm, *words).stdout)
    if words[0] == "list":
        metrics.looked("web1", document)
    else:
        metrics.operated("web1", document)


_WHY = Check(codes.LOAD_NEEDS_MORE, Verdict.PASSES, "1 vCPU is busy 99 % of the time")
_LOAD = Averages(covers=2.0, cpus=1, used=1.0, steal=0.1, waiting=3.0, pressure=0.9, memory=0.0)
_DECISION = Decision(at=5.0, online=1, goal=4, floor=1, ceiling=4, checks=(_WHY,), load=_LOAD, need=4, highest=4)


def _lived(metrics: Metrics, vm: FakeVm) -> None:
    """Something of each kind."""
    _seen(metrics, vm, "list")
    _seen(metrics, vm, "plug", "2")
    _seen(metrics, vm, "unplug")
    _seen(metrics, vm, "plug", "99")
    metrics.look_failed("web1", "qemu-silent")
    metrics.session_began("web1")
    metrics.exposition_failed("http")
    _seen(metrics, vm, "list")
    metrics.decided("web1", _DECISION, "act")
    metrics.changed("web1", _DECISION.direction)


def test_promtool_finds_no_fault_with_the_metrics_in_either_form_nor_with_the_file(
    folder: Path, prometheus: Path
) -> None:
    metrics = Metrics(["web1"], version="9.8.7")
    assert check_metrics(prometheus, metrics.exposed()[0].decode()) == "", "before anything has happened"
    with FakeVm(folder, "--maxcpus", "4", "--accel", "kvm", "--deleted", "kvm") as vm:
        _lived(metrics, vm)
    file = textfile(str(folder / "vcpuctl.prom"))
    Textfile(metrics, file).write()
    assert "vcpuctl_pluggable_vcpus" in file.read_text()
    assert check_metrics(prometheus, file.read_text()) == ""


def test_promtool_would_find_a_fault(prometheus: Path) -> None:
    assert "counter" in check_metrics(prometheus, "# HELP x_total y\n# TYPE x_total gauge\nx_total 1\n")
    assert check_metrics(prometheus, "x{ 1\n")


def test_promtool_reads_every_query_of_the_dashboard(folder: Path, prometheus: Path) -> None:
    assert check_expressions(prometheus, folder, [query for _, query in queries(load())]) == ""
    assert check_expressions(prometheus, folder, ["sum by (vcpuctl_vcpus"])


def _alert(name: str, series: str, values: str, *, fires: bool) -> dict[str, object]:
    """A test for promtool: whether the alert fires after ten minutes of these values, one a minute."""
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    sample = {"labels": "{}", "value": float(fires)}
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "promql_expr_test": [{"expr": firing, "eval_time": "10m", "exp_samples": [sample]}],
    }


def test_the_alerts_fire_for_a_vm_that_is_not_up_and_for_a_file_that_nobody_writes(
    folder: Path, prometheus: Path
) -> None:
    rules = DASHBOARD.parents[1] / "prometheus/vcpuctl.rules.yml"
    up, file = 'vcpuctl_vm_up{vm="web1"}', "node_textfile_mtime_seconds"
    whole, short = f'{file}{{file="/var/lib/prometheus/node-exporter/vcpuctl.prom"}}', f'{file}{{file="vcpuctl.prom"}}'
    tests = [
        _alert("VcpuctlVmDown", up, "1 0x10", fires=True),
        _alert("VcpuctlVmDown", up, "0 1x10", fires=False),
        _alert("VcpuctlMetricsOld", whole, "0x10", fires=True),
        _alert("VcpuctlMetricsOld", short, "0x10", fires=True),
        _alert("VcpuctlMetricsOld", whole, "0+60x10", fires=False),
        _alert("VcpuctlMetricsOld", f'{file}{{file="/x/apt.prom"}}', "0x10", fires=False),
    ]
    assert check_alerts(prometheus, folder, rules, tests) == ""
    assert check_alerts(prometheus, folder, rules, [_alert("VcpuctlVmDown", up, "0x10", fires=False)])


async def test_every_panel_of_the_dashboard_shows_something_of_vms_to_which_everything_has_happened(
    folder: Path, prometheus: Path
) -> None:
    metrics = Metrics(["web1"], version="9.8.7")
    with FakeVm(folder, "--maxcpus", "4", "--accel", "kvm", "--deleted", "kvm") as vm:
        async with Exposition(metrics, Address("127.0.0.1", 0)) as served:
            with Prometheus(prometheus, folder, f"127.0.0.1:{served.port}") as server:
                await asyncio.to_thread(server.wait_value, "count_over_time(vcpuctl_build_info[1m]) > bool 1", 1)
                # Once: what has happened for the first time has to show.
                await asyncio.to_thread(_lived, metrics, vm)
                for title, query in queries(load()):
                    counts = "increase(" in query
                    await asyncio.to_thread(server.wait_any, query, title, above=0.0 if counts else None)


async def test_prometheus_scrapes_them_and_knows_how_many_vcpus_are_online_after_a_plug(
    folder: Path, prometheus: Path
) -> None:
    metrics = Metrics(["web1", "web2"], version="9.8.7")
    online = 'vcpuctl_vcpus{vm="web1",state="online"}'
    done = 'sum(vcpuctl_operations_total{vm="web1",operation="plug",outcome="done"})'
    with FakeVm(folder, "--maxcpus", "4") as vm:
        async with Exposition(metrics, Address("127.0.0.1", 0)) as served:
            with Prometheus(prometheus, folder, f"127.0.0.1:{served.port}") as server:
                await asyncio.to_thread(_seen, metrics, vm, "list")
                await asyncio.to_thread(server.wait_value, online, 1)
                await asyncio.to_thread(_seen, metrics, vm, "plug", "2")
                await asyncio.to_thread(_seen, metrics, vm, "list")
                await asyncio.to_thread(server.wait_value, online, 3)
                await asyncio.to_thread(server.wait_value, done, 1)
                await asyncio.to_thread(server.wait_value, "sum(vcpuctl_phase_duration_seconds_count)", 6)
                await asyncio.to_thread(server.wait_value, "sum(up)", 1)
                metrics.configure(["web2"])
                await asyncio.to_thread(server.wait_value, "count(vcpuctl_link_sessions_total)", 1)
                assert await asyncio.to_thread(server.query, online) == []


def _asked(address: str) -> str:
    """What the service hands out by HTTP; nothing before it serves."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=SOON) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_vm_that_stops_answering_others_is_not_told_as_up_until_it_answers_again(folder: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        FakeVm(folder, "--maxcpus", "4") as vm,
        Serving({"web1": vm}, options=("--metrics", address)) as service,
    ):
        service.holds("web1")
        until(lambda: 'vcpuctl_vm_up{vm="web1"} 1.0' in _asked(address))
        vm.process.send_signal(signal.SIGSTOP)
        try:
            assert run(vm, "list").status != 0
            # Its own next look would come within two minutes.
            until(lambda: 'vcpuctl_vm_up{vm="web1"} 0.0' in _asked(address), within=60.0)
            assert "vcpuctl_vcpus{" not in _asked(address)
        finally:
            vm.process.send_signal(signal.SIGCONT)
        until(lambda: 'vcpuctl_vm_up{vm="web1"} 1.0' in _asked(address))


def test_a_vm_whose_file_breaks_stays_and_is_not_up_and_a_service_that_ends_takes_its_own_file_along(
    folder: Path,
) -> None:
    address, file = f"127.0.0.1:{free_port()}", folder / "vcpuctl.prom"
    with (
        FakeVm(folder / "1", "--maxcpus", "4") as vm,
        Serving({"web1": vm}, options=("--metrics", address, "--metrics-file", str(file))) as service,
    ):
        until(lambda: 'vcpuctl_vm_up{vm="web1"} 1.0' in _asked(address))
        service.breaks("web1")
        until(lambda: 'vcpuctl_vm_up{vm="web1"} 0.0' in _asked(address))
        assert 'vcpuctl_look_errors_total{reason="bad-vm-file",vm="web1"} 1.0' in _asked(address)
        service.adds("web1", vm)
        until(lambda: 'vcpuctl_vm_up{vm="web1"} 1.0' in _asked(address))
        assert file.exists()
    assert not file.exists()


def test_prometheus_scrapes_the_service_which_counts_what_is_done_through_it_and_what_cannot_be_seen(
    folder: Path, prometheus: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    file = folder / "vcpuctl.prom"
    with (
        FakeVm(folder / "1", "--maxcpus", "4") as vm,
        Serving({"web1": vm}, options=("--metrics", address, "--metrics-file", str(file))) as service,
        Prometheus(prometheus, folder, address) as server,
    ):
        service.holds("web1")
        done(vm, {0, 1, 2}, "plug", "2")
        refused = run(vm, "plug", "99")
        assert refused.status == 3
        server.wait_value('vcpuctl_vcpus{vm="web1",state="online"}', 3)
        server.wait_value('vcpuctl_operations_total{vm="web1",operation="plug",outcome="done",reason="none"}', 1)
        reason = refused.json["reason"]["code"]
        server.wait_value(f'vcpuctl_operations_total{{vm="web1",outcome="refused",reason="{reason}"}}', 1)
        server.wait_value('vcpuctl_link_sessions_total{vm="web1"}', 1)
        server.wait_value('vcpuctl_vm_up{vm="web1"}', 1)
        until(lambda: 'vcpuctl_vm_up{vm="web1"} 1.0' in (file.read_text() if file.exists() else ""))
        vm.process.kill()
        server.wait_value('vcpuctl_vm_up{vm="web1"}', 0)
        server.wait_value('sum(vcpuctl_look_errors_total{vm="web1"}) > bool 0', 1)
        assert server.query('vcpuctl_vcpus{vm="web1"}') == []


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--metrics", "0.0.0.0:9712"),
        ("--metrics", "9712"),
        ("--metrics-file", "/tmp/vcpuctl.txt"),
        ("--metrics-file", "/nowhere/x.prom"),
    ],
)
def test_metrics_that_others_could_reach_or_nobody_reads_are_refused_before_anything_is_served(
    folder: Path, option: str, word: str
) -> None:
    socket = folder / "s"
    words = ["serve", "--socket", str(socket), option, word, "-o", "json"]
    ended = subprocess.run(
        [sys.executable, "-m", "vcpu_host.cli.main", *words], capture_output=True, timeout=SOON, check=False
    )
    assert (ended.returncode, json.loads(ended.stdout)["error"]["code"]) == (2, "bad-metrics"), ended.stderr
    assert not socket.exists()
