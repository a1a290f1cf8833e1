# SPDX-License-Identifier: Apache-2.0
"""What travels of a VM: whole, and nothing else is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from kit.sim.views import host, slot, vm
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.migration.shape import Shape, shape_of
from vcpu_host.core.model import Ost
from vcpu_host.core.view import with_pending

_REMOVAL = Intent(IntentKind.UNPLUG, 2, "vcpu-2", 1_700_000_000.5, (9002,), Ost(3, 132))


def _shape() -> Shape:
    view = host(4, {0, 2}, slots=(slot(0, boot=True), slot(1, filled=False), slot(2), slot(3, device_id="mine")))
    shape = Shape.of(view, [_REMOVAL], {"virtio-blk-device.num-queues": (1, 4)})
    return replace(shape, topology={"cpus": 1, "maxcpus": 4, "sockets": 4, "cores": 1, "threads": 1})


def test_a_shape_comes_back_from_its_json_as_it_went() -> None:
    shape = _shape()
    assert Shape.from_json(json.loads(json.dumps(shape.to_json()))) == shape


def test_host_threads_and_qom_paths_do_not_travel() -> None:
    text = json.dumps(_shape().to_json()["slots"])
    assert "/machine/" not in text
    assert "9002" not in text


def test_what_is_pending_on_the_map_is_in_its_shape() -> None:
    assert shape_of(with_pending(vm(4, {0, 2}), [_REMOVAL]), {}).pending == (_REMOVAL,)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("vm",), None),
        (("vm", "machine"), 3),
        (("vm", "qemu_version"), 10),
        (("topology",), []),
        (("topology", "maxcpus"), "4"),
        (("topology", "maxcpus"), True),
        (("slots",), {}),
        (("slots", 1, "slot"), 2),
        (("slots", 1, "filled"), "yes"),
        (("slots", 1, "filled"), 1),
        (("slots", 1, "props", "socket-id"), None),
        (("slots", 1, "vcpus"), 1.5),
        (("slots", 1, "id"), 7),
        (("slots", 1, "id"), "a\x1b[2Jb"),
        (("slots", 1, "props", "socket-id"), "\x07"),
        (("queues",), None),
        (("queues", "virtio-blk-device.num-queues"), 4),
        (("pending", 0, "slot"), 4),
        (("pending", 0, "kind"), "grow"),
        (("pending", 0, "since"), float("inf")),
        (("pending", 0, "since"), float("nan")),
        (("pending", 0, "since"), 1e15),
        (("pending", 0, "since"), -1e15),
        (("pending", 0, "since"), True),
    ],
)
def test_what_no_export_says_is_an_error_in_words_and_no_shape(path: tuple[str | int, ...], value: object) -> None:
    document = json.loads(json.dumps(_shape().to_json()))
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        Shape.from_json(document)


@pytest.mark.parametrize("version", ["ten", "10.0", "10.0.-1", "1_0.0.0", " 10.0.0", "10.0.0.1", "\u0661.0.0", ""])
def test_a_version_that_is_none_is_told_as_one(version: str) -> None:
    document = json.loads(json.dumps(_shape().to_json()))
    document["vm"]["qemu_version"] = version
    with pytest.raises(ValueError, match="version is three numbers"):
        Shape.from_json(document)


@pytest.mark.parametrize("document", [None, [], 3, "x", {}, {"vm": {}}])
def test_what_is_no_export_at_all_is_an_error(document: object) -> None:
    with pytest.raises(ValueError, match=r"export|expected"):
        Shape.from_json(document)
