# SPDX-License-Identifier: Apache-2.0
"""Values that are NamedTuples (docs/adr/0029): what a tuple would do behind the back of its user."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import vcpu_host
from vcpu_host.core.operation.events import Event, PlugReturned, UnplugReturned

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


def test_what_differs_by_its_kind_alone_is_not_equal() -> None:
    plugged: Event = PlugReturned(1, None)
    unplugged: Event = UnplugReturned(1, None)
    assert plugged != unplugged
