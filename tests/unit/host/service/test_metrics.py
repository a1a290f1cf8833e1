# SPDX-License-Identifier: Apache-2.0
"""What is counted of documents, with which labels, and what goes when a VM goes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.sim.views import CORES, INFO, guest, host, vm
from prometheus_client.parser import text_string_to_metric_families
from vcpu_host.autoscale.decision import Check, Decision, Verdict
from vcpu_host.core import codes, platforms
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.operation.result import PHASES, OperationResult, SlotResult
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import join, with_pending
from vcpu_host.documents import of_result, of_view
from vcpu_host.errors import RefusedError
from vcpu_host.service.metrics import BUCKETS, HELP, NO_REASON, OTHER, STATES, WAYS, Metrics, deciding_code


@pytest.fixture(autouse=True)
def _cores_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "_TABLE", (*platforms._TABLE, CORES))


def _metrics(*vms: str) -> Metrics:
    return Metrics(vms or ("web1",), version="9.8.7", clock=lambda: 1000.5)


def _samples(metrics: Metrics) -> Iterator[tuple[str, dict[str, str], float]]:
    text, _ = metrics.exposed()
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            yield sample.name, dict(sample.labels), sample.value


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found = [value for each, has, value in _samples(metrics) if each == name and labels.items() <= has.items()]
    assert len(found) < 2, found
    return found[0] if found else None


def _states(metrics: Metrics) -> dict[str, float]:
    return {has["state"]: value for name, has, value in _samples(metrics) if name == "vcpuctl_vcpus" and value}


def _result(
    *slots: SlotResult, outcome: Outcome = Outcome.DONE, reason: Reason | None = None, elapsed: float = 0.3
) -> dict[str, Any]:
    return of_result(OperationResult(Request(Operation.PLUG, 1), outcome, slots, elapsed, reason))


def _why(code: str) -> Reason:
    return Reason(code, Origin.GUEST, "because")


# --- looks ------------------------------------------------------------------------------------------------------------


def test_each_possible_vcpu_is_in_one_state() -> None:
    metrics = _metrics()
    has = host(6, {0, 1, 2, 3})
    view = with_pending(join(has, guest(has, {0, 1}, {2}), agent=INFO), [Intent(IntentKind.UNPLUG, 1, "v", 0.0)])
    metrics.looked("web1", of_view(view))
    assert _states(metrics) == {"online": 1, "unplugging": 1, "offline": 1, "plugged": 1, "empty": 2}
    assert _value(metrics, "vcpuctl_possible_vcpus") == 6
    assert _value(metrics, "vcpuctl_pending_slots", vm="web1") == 1
    every = [has["state"] for name, has, _ in _samples(metrics) if name == "vcpuctl_vcpus"]
    assert every == list(STATES), "a state without a vCPU is 0, and not unknown to Prometheus"


def test_of_a_slot_that_is_partly_online_each_thread_counts_for_itself() -> None:
    metrics = _metrics()
    view = vm(2, {0, 1}, threads=4)
    assert view.guest is not None
    cpus = [replace(cpu, online=place != 5) for place, cpu in enumerate(view.guest.cpus)]
    metrics.looked("web1", of_view(join(view.host, view.guest._replace(cpus=tuple(cpus)), agent=view.agent)))
    assert _states(metrics) == {"online": 7, "offline": 1}


def test_without_an_agent_it_is_down_and_what_is_plugged_is_unknown() -> None:
    metrics = _metrics()
    metrics.looked("web1", of_view(join(vm(3, {0, 1}).host, None, agent_trouble=_why("agent-absent"))))
    assert _states(metrics) == {"unknown": 2, "empty": 1}
    assert _value(metrics, "vcpuctl_agent_up") == 0
    assert _value(metrics, "vcpuctl_vm_up") == 1


def test_descriptors_and_what_they_are_enough_for_are_told_where_they_are_known() -> None:
    metrics = _metrics()
    view = vm(2, {0})
    metrics.looked("web1", of_view(view))
    assert _value(metrics, "vcpuctl_qemu_open_fds") == 60
    assert _value(metrics, "vcpuctl_qemu_max_fds") == 524_288
    assert _value(metrics, "vcpuctl_pluggable_vcpus") == (524_288 - 60 - 64) // 2
    metrics.looked("web1", of_view(view._replace(host=view.host._replace(accel="tcg"))))
    assert _value(metrics, "vcpuctl_pluggable_vcpus") is None
    metrics.looked("web1", of_view(view._replace(host=view.host._replace(descriptors=None))))
    assert _value(metrics, "vcpuctl_qemu_open_fds") is None


def test_a_look_that_fails_takes_the_gauges_away_and_is_counted() -> None:
    metrics = _metrics()
    metrics.looked("web1", of_view(vm(2, {0})))
    assert _value(metrics, "vcpuctl_last_look_timestamp_seconds") == 1000.5
    metrics.look_failed("web1", codes.QEMU_SILENT)
    metrics.look_failed("web1", "never-heard-of")
    assert _value(metrics, "vcpuctl_vm_up") == 0
    assert _states(metrics) == {}
    assert _value(metrics, "vcpuctl_agent_up") is None
    assert _value(metrics, "vcpuctl_look_errors_total", reason="qemu-silent") == 1
    assert _value(metrics, "vcpuctl_look_errors_total", reason=OTHER) == 1


# --- operations -------------------------------------------------------------------------------------------------------


def test_an_operation_counts_once_with_its_outcome_and_the_reason_that_decided() -> None:
    metrics = _metrics()
    metrics.operated("web1", _result())
    metrics.operated("web1", _result(SlotResult(1, "", Outcome.DONE, _why("already"))))
    done = SlotResult(1, "", Outcome.DONE, _why("slipped"))
    failed = SlotResult(2, "", Outcome.FAILED, _why("guest-ignored"))
    metrics.operated("web1", _result(done, failed, outcome=Outcome.PARTIAL))
    metrics.operated("web1", _result(outcome=Outcome.REFUSED, reason=_why("over-max")))
    metrics.operated("web1", _result(outcome=Outcome.REFUSED, reason=_why("of-a-newer-agent")))
    counted = {
        (has["outcome"], has["reason"]): value
        for name, has, value in _samples(metrics)
        if name == "vcpuctl_operations_total"
    }
    assert counted == {
        ("done", NO_REASON): 2,
        ("partial", "guest-ignored"): 1,
        ("refused", "over-max"): 1,
        ("refused", OTHER): 1,
    }


def test_each_way_in_which_an_operation_can_end_is_counted_from_nought_before_anything_has_happened() -> None:
    metrics, name = _metrics("web1", "web2"), "vcpuctl_operation_outcomes_total"
    found = [(has["operation"], has["outcome"], value) for each, has, value in _samples(metrics) if each == name]
    assert sorted(found) == sorted(2 * [(str(operation), str(end), 0.0) for operation in Operation for end in Outcome])
    for reason in ("qemu-gone", "no-room"):
        metrics.operated("web1", _result(outcome=Outcome.FAILED, reason=_why(reason)))
    assert _value(metrics, name, vm="web1", operation="plug", outcome="failed") == 2
    assert _value(metrics, name, vm="web1", operation="plug", outcome="done") == 0
    assert _value(metrics, name, vm="web2", operation="plug", outcome="failed") == 0


def test_the_reason_that_decides_is_that_of_the_outcome() -> None:
    slots = (
        SlotResult(1, "", Outcome.REFUSED, _why("smt-off")),
        SlotResult(2, "", Outcome.UNKNOWN, _why("removal-pending")),
        SlotResult(3, "", Outcome.UNKNOWN),
    )
    assert deciding_code(_result(*slots, outcome=Outcome.UNKNOWN)) == "removal-pending"
    assert deciding_code(_result(*slots[2:], outcome=Outcome.UNKNOWN)) == ""


def test_no_code_is_called_as_what_stands_for_none() -> None:
    assert not {NO_REASON, OTHER} & codes.table().keys()


def test_seconds_go_into_the_bucket_that_holds_them_and_into_the_sum() -> None:
    metrics = _metrics()
    phases = {"device_add": BUCKETS[0], "online": 0.07, "to-come": 1.0}
    metrics.operated("web1", _result(SlotResult(1, "", Outcome.DONE, None, phases), elapsed=1e6))
    name = "vcpuctl_phase_duration_seconds"
    assert _value(metrics, f"{name}_bucket", phase="device_add", le=str(BUCKETS[0])) == 1
    assert _value(metrics, f"{name}_bucket", phase="online", le="0.05") == 0
    assert _value(metrics, f"{name}_bucket", phase="online", le="0.1") == 1
    assert _value(metrics, f"{name}_sum", phase="online") == 0.07
    assert _value(metrics, f"{name}_count", phase=OTHER) == 1
    assert _value(metrics, "vcpuctl_operation_duration_seconds_bucket", le="300.0") == 0
    assert _value(metrics, "vcpuctl_operation_duration_seconds_bucket", le="+Inf") == 1


def test_whatever_comes_the_labels_stay_within_their_tables() -> None:
    metrics = _metrics()
    for number in range(300):
        odd = _why(f"code-{number}")
        slot = SlotResult(1, "", Outcome.FAILED, odd, {f"phase-{number}": 1.0})
        metrics.operated("web1", _result(slot, outcome=Outcome.FAILED))
        metrics.look_failed("web1", odd.code)
        metrics.looked(f"vm-{number}", of_view(vm(1, {0})))
        metrics.operated(f"vm-{number}", _result())
        metrics.session_began(f"vm-{number}")
        metrics.look_failed(f"vm-{number}", "qemu-gone")
    assert sum(1 for _ in _samples(metrics)) < 85
    with pytest.raises(ValueError, match="explode"):
        metrics.operated("web1", {**_result(), "operation": "explode"})


# --- VMs --------------------------------------------------------------------------------------------------------------


def test_a_vm_that_goes_takes_its_series_along_and_the_others_keep_theirs() -> None:
    metrics = _metrics("web1", "web2")
    for name in ("web1", "web2"):
        metrics.looked(name, of_view(vm(2, {0})))
        metrics.operated(name, _result(SlotResult(1, "", Outcome.DONE, None, {"online": 0.1})))
        metrics.session_began(name)
        metrics.look_failed(name, "qemu-gone")
        metrics.looked(name, of_view(vm(2, {0})))
    metrics.configure(["web2", "web3"])
    named = {has["vm"] for _, has, _ in _samples(metrics) if "vm" in has}
    assert named == {"web2", "web3"}
    assert _value(metrics, "vcpuctl_operations_total", vm="web2") == 1
    assert _value(metrics, "vcpuctl_link_sessions_total", vm="web3") == 0
    metrics.configure(["web1", "web2"])
    assert _value(metrics, "vcpuctl_operations_total", vm="web1") is None, "it begins anew"


def test_every_metric_is_told_and_has_its_help() -> None:
    metrics = _metrics()
    metrics.looked("web1", of_view(vm(2, {0})))
    metrics.operated("web1", _result(SlotResult(1, "", Outcome.DONE, None, {"online": 0.1})))
    metrics.session_began("web1")
    metrics.look_failed("web1", "qemu-gone")
    text, content_type = metrics.exposed()
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert {name: family.documentation for name, family in families.items()} == dict(HELP)
    assert content_type.startswith("text/plain")
    assert _value(metrics, "vcpuctl_build_info", version="9.8.7") == 1


def test_the_page_on_metrics_tells_every_metric_as_it_is() -> None:
    metrics = _metrics()
    text, _ = metrics.exposed()
    page = (Path(__file__).resolve().parents[4] / "docs/metrics.md").read_text()
    for family in text_string_to_metric_families(text.decode()):
        suffix = "_total" if family.type == "counter" else ""
        assert re.search(
            rf"^\| `{family.name}{suffix}` \| {family.type} \| [a-z, ]+ \| {re.escape(family.documentation)} \|$",
            page,
            re.MULTILINE,
        ), family.name
    words = set(re.findall(r"`([a-z_]+)`", page))
    assert {*STATES, *PHASES, *WAYS, NO_REASON, OTHER} <= words


def test_a_reader_of_openmetrics_gets_that() -> None:
    metrics = _metrics()
    metrics.operated("web1", _result())
    text, content_type = metrics.exposed("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_ways_out_that_failed_are_counted_and_others_do_not_exist() -> None:
    metrics = _metrics()
    metrics.exposition_failed("http")
    assert _value(metrics, "vcpuctl_exposition_errors_total", way="http") == 1
    assert _value(metrics, "vcpuctl_exposition_errors_total", way="textfile") == 0
    with pytest.raises(ValueError, match="pigeon"):
        metrics.exposition_failed("pigeon")


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(RefusedError) as error:
        Metrics()
    assert error.value.reason.code == "no-metrics"
    assert "python3-prometheus-client" in error.value.reason.hint


def _decision(code: str) -> Decision:
    return Decision(0.0, 1, 4, 1, 8, (Check(code, Verdict.PASSES, "words"),))


def test_an_autoscaler_that_is_switched_off_is_told_as_such_and_one_whose_vm_is_gone_not_at_all() -> None:
    metrics = _metrics()
    metrics.decided("web1", _decision(codes.LOAD_NEEDS_MORE), "act")
    metrics.changed("web1", "up")
    assert _value(metrics, "vcpuctl_autoscale_enabled") == 1
    metrics.decided("web1", _decision(codes.AUTOSCALE_OFF), "act")
    assert _value(metrics, "vcpuctl_autoscale_enabled") == 0
    metrics.look_failed("web1", codes.QEMU_GONE)
    assert _value(metrics, "vcpuctl_autoscale_enabled") is None
    assert _value(metrics, "vcpuctl_autoscale_hold") is None
    assert _value(metrics, "vcpuctl_autoscale_decisions_total", direction="up") == 1, "what has happened stays counted"
    metrics.decided("web1", _decision(codes.LOAD_NEEDS_MORE), "act")
    assert _value(metrics, "vcpuctl_autoscale_hold") is None, "a decision about what cannot be seen shows nothing"
