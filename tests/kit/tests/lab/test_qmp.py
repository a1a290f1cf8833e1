# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.lab.errors import QmpError, VmDiedError, WaitTimeoutError
from kit.lab.qmp import Qmp

Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Monitor:
    """A monitor that answers each request with what ``answer`` gives; without one it says the request's arguments."""

    def __init__(self, path: Path) -> None:
        self.answer: Answer = lambda request: [{"return": request.get("arguments", {}), "id": request["id"]}]
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)

    def _serve(self) -> None:
        try:
            client, _ = self._server.accept()
        except OSError:
            return
        with client, client.makefile("rw") as lines:
            lines.write('{"QMP": {}}\n')
            lines.flush()
            for line in lines:
                for message in self.answer(json.loads(line)):
                    lines.write(json.dumps(message) + "\n")
                    lines.flush()
                if "quit" in line:
                    return


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    running = Monitor(tmp_path / "qmp")
    yield running
    running.close()


@pytest.fixture
def qmp(monitor: Monitor, tmp_path: Path) -> Iterator[Qmp]:
    client = Qmp(tmp_path / "qmp", tail=lambda: "the tail")
    yield client
    client.close()


def test_a_command_gives_its_value_and_underscores_become_hyphens(qmp: Qmp) -> None:
    assert qmp.execute("anything", core_id=1, id="x") == {"core-id": 1, "id": "x"}


def test_an_error_has_qemus_class_and_words(monitor: Monitor, qmp: Qmp) -> None:
    monitor.answer = lambda request: [{"error": {"class": "DeviceNotFound", "desc": "gone"}, "id": request["id"]}]
    with pytest.raises(QmpError, match="gone") as refused:
        qmp.execute("device_del", id="x")
    assert refused.value.cls == "DeviceNotFound"


def test_an_event_is_given_once_and_matches_below_info(monitor: Monitor, qmp: Qmp) -> None:
    def ost(slot: str) -> dict[str, Any]:
        return {"event": "ACPI_DEVICE_OST", "data": {"info": {"slot": slot, "slot-type": "CPU"}}}

    monitor.answer = lambda request: [ost("4"), ost("3"), {"return": {}, "id": request["id"]}]
    qmp.execute("anything")
    assert qmp.wait_event("ACPI_DEVICE_OST", slot="3", slot_type="CPU").data["info"]["slot"] == "3"
    assert qmp.wait_event("ACPI_DEVICE_OST").data["info"]["slot"] == "4"
    assert len(qmp.events()) == 2
    with pytest.raises(WaitTimeoutError, match="the tail"):
        qmp.wait_event("ACPI_DEVICE_OST", timeout=0.05)


def test_an_answer_that_does_not_come_is_a_timeout(monitor: Monitor, qmp: Qmp) -> None:
    monitor.answer = lambda _request: []
    with pytest.raises(WaitTimeoutError, match="answer to query-status"):
        qmp.execute("query-status", timeout=0.05)


def test_a_qemu_that_ends_is_said_to_have_ended(qmp: Qmp) -> None:
    qmp.execute("quit")
    qmp.wait_closed(10.0)
    assert qmp.closed
    with pytest.raises(VmDiedError, match="the tail"):
        qmp.execute("query-status")
    with pytest.raises(VmDiedError):
        qmp.wait_event("SHUTDOWN")
