# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of the VMs: counted from documents, and shown when somebody asks.

Nothing here reaches for a VM. Whoever holds them hands in what they found: a ``documents.of_view`` after each look, a
``documents.of_result`` after each operation. Labels are bounded: a VM's name comes from the configuration, all else
from tables of ours. All calls come from one thread.

prometheus_client is an optional dependency, which no other room imports.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core import codes
from ..core.operation.result import PHASES
from ..core.planning.plan import Operation
from ..core.reason import Origin, Outcome, Reason
from ..errors import RefusedError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ..autoscale.decision import Decision

#: Each metric with its help. Counters are asked for with _total, histograms with _bucket, _count and _sum.
HELP: Mapping[str, str] = {
    "vcpuctl_build_info": "The version of vcpuctl; always 1.",
    "vcpuctl_vcpus": "vCPUs of a VM in each state; all states together are the possible ones.",
    "vcpuctl_possible_vcpus": "How many vCPUs the VM can ever have.",
    "vcpuctl_pluggable_vcpus": "How many more vCPUs QEMU's file descriptors are enough for; only where they limit it.",
    "vcpuctl_pending_slots": "Slots of which an earlier operation has not come to its end.",
    "vcpuctl_agent_up": "Whether the agent answered at the last look (1) or not (0).",
    "vcpuctl_vm_up": "Whether the last look at the VM succeeded (1) or not (0).",
    "vcpuctl_last_look_timestamp_seconds": "When the VM was last seen.",
    "vcpuctl_qemu_open_fds": "File descriptors that QEMU has open.",
    "vcpuctl_qemu_max_fds": "How many file descriptors QEMU may have open.",
    "vcpuctl_link_sessions": "Link sessions made with the agent.",
    "vcpuctl_operations": "Operations that have ended, by outcome and by the reason that counts.",
    "vcpuctl_operation_outcomes": "Operations that have ended, by outcome; each series is there from the first moment.",
    "vcpuctl_operation_duration_seconds": "How long operations took.",
    "vcpuctl_phase_duration_seconds": "How long each phase took, for each slot.",
    "vcpuctl_look_errors": "Looks at a VM that failed, by reason.",
    "vcpuctl_autoscale_enabled": "Whether vCPUs follow the load (1), or it is only told what would be done (0).",
    "vcpuctl_autoscale_goal_vcpus": "How many vCPUs the VM should have now.",
    "vcpuctl_autoscale_used_vcpus": "How many vCPUs the guest used, averaged over the window for growing.",
    "vcpuctl_autoscale_waiting_tasks": "How many tasks waited for a CPU, averaged likewise.",
    "vcpuctl_autoscale_stolen_vcpus": (
        "How many vCPUs the host took away, averaged likewise; also by what the guest's kernel does not account for."
    ),
    "vcpuctl_autoscale_pressure_ratio": "The share of the time in which some task waited for a CPU (PSI).",
    "vcpuctl_autoscale_hold": "Always 1; why the VM keeps its vCPUs, or why they change.",
    "vcpuctl_autoscale_decisions": "Decisions to change a VM, by direction; also those that were only told.",
    "vcpuctl_exposition_errors": "Metrics that could not be handed out, by way.",
}
#: A vCPU is in one of these. A slot that is partly online has some in "online" and the others in "offline".
STATES = ("online", "offline", "plugged", "unplugging", "unknown", "empty")
#: All ways in which an operation can end.
_ENDS = tuple((str(operation), str(outcome)) for operation in Operation for outcome in Outcome)
#: By which metrics get out.
WAYS = ("http", "textfile")
#: Upper bounds of a histogram's buckets, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: Where there is no reason, and where there is one that is not in our table: a newer agent may send such.
NO_REASON, OTHER = "none", "other"


class _Histogram:
    """Counts by bucket, and the sum."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return each upper bound with how many were not above it."""
        total, found = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


@dataclass
class _Vm:
    """What is known of one VM; the gauges are None until it was seen, and again when it cannot be seen."""

    seen: dict[str, float] | None = None
    states: dict[str, int] = field(default_factory=dict)
    up: bool | None = None
    sessions: int = 0
    operations: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    look_errors: Counter[str] = field(default_factory=Counter)
    durations: dict[str, _Histogram] = field(default_factory=dict)
    phases: dict[str, _Histogram] = field(default_factory=dict)
    autoscale: dict[str, float] = field(default_factory=dict)
    held_by: str = ""
    scaled: bool = False  # it has, or had, an autoscaler
    decisions: Counter[str] = field(default_factory=Counter)

    def outcomes(self) -> Counter[tuple[str, str]]:
        """Return how many operations ended in which way, whatever for."""
        found: Counter[tuple[str, str]] = Counter()
        for (operation, outcome, _), count in self.operations.items():
            found[operation, outcome] += count
        return found


class Metrics:
    """The metrics of one service. ``clock`` tells seconds since 1970.

    Raise RefusedError "no-metrics" where prometheus_client is not installed.
    """

    def __init__(self, vms: Iterable[str] = (), *, version: str = "", clock: Callable[[], float] = time.time) -> None:
        try:
            from prometheus_client import CollectorRegistry
        except ImportError as error:
            text = "metrics need the Python package prometheus_client, which is not installed"
            hint = "apt-get install python3-prometheus-client, or pip install 'vcpu-host[metrics]'"
            raise RefusedError(Reason(codes.NO_METRICS, Origin.VCPUCTL, text, hint)) from error
        self._version = version
        self._clock = clock
        self._codes = codes.table().keys()
        self._vms: dict[str, _Vm] = {}
        self._failures: Counter[str] = Counter()
        #: Set when each VM was looked at, for the first time.
        self.all_seen = asyncio.Event()
        self.configure(vms)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    # --- what happens -------------------------------------------------------------------------------------------------

    def configure(self, vms: Iterable[str]) -> None:
        """Take these VMs, and no others, by their names in vms.d. One that has gone takes its series along."""
        self._vms = {name: self._vms.get(name) or _Vm() for name in sorted(set(vms))}

    def looked(self, vm: str, document: Mapping[str, Any]) -> None:
        """Take a look that succeeded (``documents.of_view``). One at a VM that is not configured is passed over."""
        known = self._vms.get(vm)
        if known is None:
            return
        whole = document["vm"]
        known.up = True
        self._look_ended()
        known.states = _states(document["slots"])
        known.seen = {
            "vcpuctl_possible_vcpus": whole["possible_vcpus"],
            "vcpuctl_pending_slots": sum(slot["pending"] is not None for slot in document["slots"]),
            "vcpuctl_agent_up": document["agent"] is not None,
            "vcpuctl_last_look_timestamp_seconds": self._clock(),
        }
        has = whole["descriptors"]
        if has is not None:
            known.seen |= {"vcpuctl_qemu_open_fds": has["open"], "vcpuctl_qemu_max_fds": has["limit"]}
            if has["vcpus_left"] is not None:
                known.seen["vcpuctl_pluggable_vcpus"] = has["vcpus_left"]

    def look_failed(self, vm: str, code: str) -> None:
        """Take a look that failed for this reason. What was seen before is not shown any more: it may be untrue."""
        known = self._vms.get(vm)
        if known is None:
            return
        known.up, known.seen, known.states = False, None, {}
        known.held_by, known.autoscale = "", {}
        known.look_errors[self._bounded(code)] += 1
        self._look_ended()

    def _look_ended(self) -> None:
        if not self.all_seen.is_set() and all(known.up is not None for known in self._vms.values()):
            self.all_seen.set()

    def operated(self, vm: str, document: Mapping[str, Any]) -> None:
        """Take an operation that has ended (``documents.of_result``), as ``looked`` takes a look."""
        known = self._vms.get(vm)
        if known is None:
            return
        operation, outcome = str(Operation(document["operation"])), str(Outcome(document["outcome"]))
        known.operations[operation, outcome, self._bounded(deciding_code(document))] += 1
        known.durations.setdefault(operation, _Histogram()).observe(document["elapsed"])
        for slot in document["slots"]:
            for phase, seconds in slot["phases"].items():
                name = phase if phase in PHASES else OTHER
                known.phases.setdefault(name, _Histogram()).observe(seconds)

    def decided(self, vm: str, decision: Decision, mode: str) -> None:
        """Take what the autoscaler has decided for a VM."""
        known = self._vms.get(vm)
        if known is None:
            return
        load = decision.load
        known.scaled = True
        if known.up is False:
            return  # about a VM that is being let go: what cannot be seen has no gauges
        known.held_by = self._bounded(decision.code)
        known.autoscale = {
            "vcpuctl_autoscale_enabled": mode == "act" and decision.code != codes.AUTOSCALE_OFF,
            "vcpuctl_autoscale_goal_vcpus": decision.goal,
        }
        if load is not None:
            known.autoscale |= {
                "vcpuctl_autoscale_used_vcpus": load.used,
                "vcpuctl_autoscale_stolen_vcpus": load.steal,
                **({} if load.waiting is None else {"vcpuctl_autoscale_waiting_tasks": load.waiting}),
                **({} if load.pressure is None else {"vcpuctl_autoscale_pressure_ratio": load.pressure}),
            }

    def changed(self, vm: str, direction: str) -> None:
        """Take that a VM is to change, or would."""
        known = self._vms.get(vm)
        if known is not None:
            known.decisions[direction] += 1

    def session_began(self, vm: str) -> None:
        """Take a link session that was made with the VM's agent."""
        known = self._vms.get(vm)
        if known is not None:
            known.sessions += 1

    def exposition_failed(self, way: str) -> None:
        """Take a time when metrics did not get out by one of ``WAYS``. Raise ValueError for another."""
        if way not in WAYS:
            raise ValueError(f"no such way: {way}")
        self._failures[way] += 1

    def _bounded(self, code: str) -> str:
        if not code:
            return NO_REASON
        return code if code in self._codes else OTHER

    # --- what is shown ------------------------------------------------------------------------------------------------

    def exposed(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type, in the newest form that ``accept``, HTTP's header, allows."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; prometheus_client asks for them at each exposition."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def gauge(name: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, HELP[name], labels=labels)

        def counter(name: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(name, HELP[name], labels=labels)

        info = gauge("vcpuctl_build_info", "version")
        info.add_metric([self._version], 1)
        yield info
        yield from self._gauges(gauge)
        sessions = counter("vcpuctl_link_sessions", "vm")
        operations = counter("vcpuctl_operations", "vm", "operation", "outcome", "reason")
        outcomes = counter("vcpuctl_operation_outcomes", "vm", "operation", "outcome")
        errors = counter("vcpuctl_look_errors", "vm", "reason")
        for vm, known in self._vms.items():
            sessions.add_metric([vm], known.sessions)
            # Prometheus sees nothing increase in a series that begins with 1: so each of these begins with 0.
            ended = known.outcomes()
            for operation, outcome in _ENDS:
                outcomes.add_metric([vm, operation, outcome], ended[operation, outcome])
            for labels, count in known.operations.items():
                operations.add_metric([vm, *labels], count)
            for reason, count in known.look_errors.items():
                errors.add_metric([vm, reason], count)
        yield from self._autoscale(gauge, counter)
        failures = counter("vcpuctl_exposition_errors", "way")
        for way in WAYS:
            failures.add_metric([way], self._failures[way])
        yield from (sessions, operations, outcomes, errors, failures)
        for name, label in (
            ("vcpuctl_operation_duration_seconds", "operation"),
            ("vcpuctl_phase_duration_seconds", "phase"),
        ):
            family = HistogramMetricFamily(name, HELP[name], labels=("vm", label))
            for vm, known in self._vms.items():
                for value, histogram in (known.durations if label == "operation" else known.phases).items():
                    family.add_metric([vm, value], histogram.buckets(), histogram.sum)
            yield family

    def _gauges(self, gauge: Callable[..., Any]) -> Iterator[Metric]:
        """Yield what the last looks have shown. A VM that was never looked at has no series there."""
        vcpus, up = gauge("vcpuctl_vcpus", "vm", "state"), gauge("vcpuctl_vm_up", "vm")
        seen = {name: gauge(name, "vm") for name in HELP if name in _SEEN}
        for vm, known in self._vms.items():
            if known.up is not None:
                up.add_metric([vm], float(known.up))
            if known.seen is None:
                continue
            for state in STATES:
                vcpus.add_metric([vm, state], known.states.get(state, 0))
            for name, value in known.seen.items():
                seen[name].add_metric([vm], float(value))
        yield from (vcpus, up, *seen.values())

    def _autoscale(self, gauge: Callable[..., Any], counter: Callable[..., Any]) -> Iterator[Metric]:
        """Yield what the autoscaler decides. VMs without one have no series there."""
        gauges = {name: gauge(name, "vm") for name in HELP if name in _AUTOSCALE}
        hold = gauge("vcpuctl_autoscale_hold", "vm", "reason")
        decisions = counter("vcpuctl_autoscale_decisions", "vm", "direction")
        for vm, known in self._vms.items():
            for name, value in known.autoscale.items():
                gauges[name].add_metric([vm], float(value))
            if known.held_by:
                hold.add_metric([vm, known.held_by], 1.0)
            if known.scaled:
                for direction in ("up", "down"):
                    decisions.add_metric([vm, direction], known.decisions[direction])
        yield from (*gauges.values(), hold, decisions)


#: The gauges of one value a VM that a decision gives.
_AUTOSCALE = frozenset(
    {
        "vcpuctl_autoscale_enabled",
        "vcpuctl_autoscale_goal_vcpus",
        "vcpuctl_autoscale_used_vcpus",
        "vcpuctl_autoscale_waiting_tasks",
        "vcpuctl_autoscale_stolen_vcpus",
        "vcpuctl_autoscale_pressure_ratio",
    }
)
#: The gauges of one value a VM that a look gives.
_SEEN = frozenset(
    {
        "vcpuctl_possible_vcpus",
        "vcpuctl_pluggable_vcpus",
        "vcpuctl_pending_slots",
        "vcpuctl_agent_up",
        "vcpuctl_last_look_timestamp_seconds",
        "vcpuctl_qemu_open_fds",
        "vcpuctl_qemu_max_fds",
    }
)


def _states(slots: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many vCPUs are in each state."""
    counted: Counter[str] = Counter()
    for slot in slots:
        if slot["state"] in ("online", "partial"):
            online = sum(thread["online"] for thread in slot["threads"])
            counted["online"] += online
            counted["offline"] += slot["vcpus"] - online
        else:
            counted[slot["state"]] += slot["vcpus"]
    return counted


def deciding_code(document: Mapping[str, Any]) -> str:
    """Return the code of the reason that an operation ended as it did; empty if there is none.

    That of the whole, else that of the first slot which shares the outcome of the whole, else of the first that is not
    done.
    """
    if document["reason"] is not None:
        return str(document["reason"]["code"])
    if document["outcome"] == Outcome.DONE:
        return ""
    told = [slot for slot in document["slots"] if slot["reason"] is not None and slot["outcome"] != Outcome.DONE]
    told.sort(key=lambda slot: bool(slot["outcome"] != document["outcome"]))
    return str(told[0]["reason"]["code"]) if told else ""
