# SPDX-License-Identifier: Apache-2.0
"""Values that are NamedTuples (docs/adr/0029): what a tuple would do behind the back of its user."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import vcpu_host
from vcpu_host.core.operation.events import Action, Event
from vcpu_host.core.operation.result import SlotResult
from vcpu_host.core.reason import Outcome

#: What could be changed, and what only a dataclass makes a default of.
_NO_DEFAULTS = (list, dict, set, dataclasses.Field)


def _values() -> Iterator[Any]:
    for module in pkgutil.walk_packages(vcpu_host.__path__, "vcpu_host."):
        if module.name.startswith("vcpu_host.libvirt"):  # its library is not on every machine
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and issubclass(kind, tuple) and kind.__module__ == module.name:
                yield kind


@pytest.mark.parametrize("kind", list(_values()), ids=lambda kind: kind.__qualname__)
def test_no_value_is_false_or_shares_what_can_be_changed(kind: Any) -> None:
    assert kind._fields, "a tuple without fields is false, and equal to each other one"
    shared = [name for name, default in kind._field_defaults.items() if isinstance(default, _NO_DEFAULTS)]
    assert shared == [], "all values of this kind would have one and the same"


def _shape(kind: Any) -> tuple[str, ...]:
    return tuple(kind.__annotations__.values())


@pytest.mark.parametrize("kinds", [Event, Action], ids=["events", "actions"])
def test_what_differs_by_its_kind_alone_is_no_tuple(kinds: Any) -> None:
    shapes = Counter(map(_shape, get_args(kinds)))
    alike = {kind.__name__ for kind in get_args(kinds) if shapes[_shape(kind)] > 1}
    assert alike, "some are alike, so this finds such"
    assert {kind.__name__ for kind in get_args(kinds) if issubclass(kind, tuple)} & alike == set()


def test_a_result_can_be_copied_and_sent_to_another_process() -> None:
    slot = SlotResult(1, "vcpu-1", Outcome.DONE, None)
    assert pickle.loads(pickle.dumps(slot)) == copy.deepcopy(slot) == slot
