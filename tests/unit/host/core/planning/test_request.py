# SPDX-License-Identifier: Apache-2.0
"""What may be asked for is the same for the library, the command line, gRPC and vcpuctl's own lines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import pytest
from vcpu_host.cli.operate import request_of
from vcpu_host.core import codes
from vcpu_host.core.planning.plan import FLAGS, Operation, Request
from vcpu_host.errors import UsageError
from vcpu_host.service.rpc import _call
from vcpu_host.sharing.calls import Call, Kind
from vcpu_proto.host.v1 import host_pb2 as pb

#: What each operation takes: an amount, slots, and flags.
_TAKES = {
    Operation.PLUG: ({"count", "slots"}, {"without_agent", "atomic", "config"}),
    Operation.UNPLUG: ({"count", "slots"}, {"without_agent", "atomic", "config"}),
    Operation.SCALE: ({"count"}, {"in_guest", "atomic", "config"}),
    Operation.ONLINE: ({"slots"}, {"atomic"}),
    Operation.OFFLINE: ({"slots"}, {"atomic"}),
}
_VALUES: dict[str, Any] = {"count": 2, "slots": ["1", "2"]}


def _all() -> Iterator[tuple[Operation, tuple[str, ...], frozenset[str], bool]]:
    """Each operation with each way to say how many and with each set of flags, and whether they go together."""
    some = chain.from_iterable(combinations(FLAGS, many) for many in range(len(FLAGS) + 1))
    sets = [frozenset(flags) for flags in some]
    for operation, (amounts, taken) in _TAKES.items():
        for amount in (("count",), ("slots",), ("count", "slots")):
            for flags in sets:
                fits = len(amount) == 1 and amounts >= set(amount) and taken >= flags
                yield operation, amount, flags, fits and not {"in_guest", "config"} <= flags


def _by_library(operation: Operation, amount: tuple[str, ...], flags: frozenset[str]) -> Request:
    count, slots = (_VALUES[name] if name in amount else None for name in ("count", "slots"))
    on: dict[str, Any] = dict.fromkeys(flags, True)
    return Request(operation, count, tuple(slots or ()), **on)


def _by_lines(operation: Operation, amount: tuple[str, ...], flags: frozenset[str]) -> Request | None:
    said = {"operation": str(operation), **{name: _VALUES[name] for name in amount}, **dict.fromkeys(flags, True)}
    return Call.from_json({"call": "run", "request": said}).request


def _by_grpc(operation: Operation, amount: tuple[str, ...], flags: frozenset[str]) -> Request | None:
    said: dict[str, Any] = {name: _VALUES[name] for name in amount} | dict.fromkeys(flags, True)
    return _call(Kind.RUN, pb.Order(operation=f"OPERATION_{operation.upper()}", **said)).request


@pytest.mark.parametrize("operation", Operation)
def test_whatever_is_asked_for_by_whatever_way_goes_together_or_is_refused_in_words(operation: Operation) -> None:
    tried = 0
    for operation_, amount, flags, fits in _all():
        if operation_ is not operation:
            continue
        tried += 1
        if fits:
            made = _by_library(operation, amount, flags)
            assert _by_lines(operation, amount, flags) == made
            assert _by_grpc(operation, amount, flags) == made
            continue
        with pytest.raises(ValueError, match=" "):
            _by_library(operation, amount, flags)
        for way in (_by_lines, _by_grpc):
            with pytest.raises(UsageError) as error:
                way(operation, amount, flags)
            assert error.value.reason.code == codes.BAD_CALL
    assert tried == 3 * 2 ** len(FLAGS)


@pytest.mark.parametrize("operation", ["plug", "unplug", "online", "offline"])
def test_the_command_line_makes_its_usage_error_of_what_does_not_go_together(operation: str) -> None:
    args = argparse.Namespace(slots=["1"], amount=None, count=None, named=[], workload=None, in_guest=True)
    with pytest.raises(UsageError) as error:
        request_of(args, operation)
    assert error.value.reason.code == codes.BAD_USAGE


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": "2"}, "whole number"),
        ({"count": 2.5}, "whole number"),
        ({"count": True}, "whole number"),
        ({"count": 0}, "at least 1"),
        ({"count": -1}, "at least 1"),
        ({"node": "0", "count": 1}, "NUMA node"),
        ({"node": True, "count": 1}, "NUMA node"),
        ({"selectors": "12"}, "tuple of texts"),
        ({"selectors": (1, 2)}, "tuple of texts"),
        ({"operation": "unplug", "count": 1}, "operation is 'unplug'"),
        ({"placement": "pack", "count": 1}, "placement is 'pack'"),
        ({"workload": "refuse", "count": 1}, "workload is 'refuse'"),
        ({"without_agent": "no", "count": 1}, "without_agent is 'no'"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_before_anything_takes_it_for_what_it_is_not(
    wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Request(**{"operation": Operation.UNPLUG, **wrong})
