# SPDX-License-Identifier: Apache-2.0
"""The agent's answer about the guest's programs, into the model's values: bounded, checked and made printable.

Users of the guest choose the names in it. Imported when such an answer is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vcpu_proto.v1 import agent_pb2 as pb

from vcpu_host.core.text import printable
from vcpu_host.core.workload import cpus
from vcpu_host.core.workload.model import (
    AffineUnit,
    Broken,
    Cpuset,
    Fate,
    NetworkDevice,
    Pinned,
    Quota,
    Threads,
    Who,
    Workload,
)

from .bounds import BadMessageError

#: Entries of a list, threads that are named of those alike, bytes of a text, and of a name (agent.proto).
MAX_LIST, MAX_SOME, MAX_TEXT, MAX_NAME = 1024, 4, 1024, 256
#: Bytes of one list of CPUs, and of all of them.
MAX_CPUS, MAX_ALL_CPUS = 32768, 1 << 20

_FATE = {
    pb.Broken.FATE_WIDENED: Fate.WIDENED,
    pb.Broken.FATE_ASLEEP: Fate.ASLEEP,
    pb.Broken.FATE_PUT_BACK: Fate.PUT_BACK,
}


def workload(message: pb.Workload) -> Workload:
    """Return what was found. Raise BadMessageError for what is out of bounds."""
    listed = _Lists()
    return Workload(
        online=listed(message.online),
        pinned=tuple(Pinned(listed(each.cpus), _threads(each.threads)) for each in _list(message.pinned)),
        cpusets=tuple(
            Cpuset(
                _name(each.cgroup),
                listed(each.cpus),
                listed(each.effective),
                _text(each.partition, 80),
                each.populated,
            )
            for each in _list(message.cpusets)
        ),
        units=tuple(AffineUnit(_name(each.name), listed(each.cpus), each.active) for each in _list(message.units)),
        deadline=_threads(message.deadline),
        forgotten=_threads(message.forgotten),
        broken=tuple(
            Broken(listed(each.cpus), _FATE[each.fate], _threads(each.threads))
            for each in _list(message.broken)
            if each.fate in _FATE  # a newer agent may know others
        ),
        network=tuple(
            NetworkDevice(_name(each.name), each.queue_pairs, each.most_queue_pairs) for each in _list(message.network)
        ),
        quotas=tuple(
            Quota(_name(each.cgroup), _name(each.unit), each.cpus)
            for each in _list(message.quotas)
            if 0 <= each.cpus < cpus.LIMIT
        ),
        isolated=listed(message.isolated),
        nohz_full=listed(message.nohz_full),
        partition_isolated=listed(message.partition_isolated),
        kdump_reloads=message.kdump_reloads,
        root_effective=listed(message.root_effective),
        unseen=tuple(_text(each) for each in _list(message.unseen)),
    )


def _list(items: Sequence[Any]) -> Sequence[Any]:
    if len(items) > MAX_LIST:
        raise BadMessageError(f"more than {MAX_LIST} entries in a list of what programs do")
    return items


def _threads(message: pb.Threads) -> Threads:
    if len(message.some) > MAX_SOME:
        raise BadMessageError(f"more than {MAX_SOME} threads named of those alike")
    some = tuple(
        Who(each.pid, each.tid, _name(each.comm), _name(each.unit), _name(each.cgroup)) for each in message.some
    )
    return Threads(max(message.count, len(some)), some)


class _Lists:
    """Reads the lists of CPUs of one message: each has its bound, and so has the work for all of them."""

    def __init__(self) -> None:
        self._left = MAX_ALL_CPUS

    def __call__(self, text: str) -> int:
        self._left -= len(text)
        if len(text) > MAX_CPUS or self._left < 0:
            raise BadMessageError(f"lists of CPUs are longer than {MAX_CPUS} bytes, or all of them than {MAX_ALL_CPUS}")
        try:
            return cpus.parse(text)
        except ValueError as error:
            raise BadMessageError(str(error)) from error


def _name(text: str) -> str:
    return printable(_bounded(text, MAX_NAME), MAX_NAME)


def _text(text: str, limit: int = MAX_TEXT) -> str:
    return printable(_bounded(text, MAX_TEXT), limit)


def _bounded(text: str, limit: int) -> str:
    if len(text.encode()) > limit:
        raise BadMessageError(f"a text of what programs do is longer than {limit} bytes")
    return text
