# SPDX-License-Identifier: Apache-2.0
"""Metrics by HTTP: for this host alone, whatever its clients do."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from kit.fakes.adapters import until
from vcpu_host.errors import UsageError
from vcpu_host.service import exposition
from vcpu_host.service.exposition import CLIENTS, LARGEST, Address, Exposition, address
from vcpu_host.service.metrics import Metrics

_ANY = Address("127.0.0.1", 0)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["web1"], version="9.8.7")


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.0.0.1:9712", Address("127.0.0.1", 9712)),
        ("127.8.9.10:0", Address("127.8.9.10", 0)),
        ("[::1]:9712", Address("::1", 9712)),
        ("localhost:9712", Address("127.0.0.1", 9712)),
        ("unix:/run/vcpuctl/metrics.sock", Address(path="/run/vcpuctl/metrics.sock")),
    ],
)
def test_an_address_is_one_of_loopback_or_a_unix_socket(text: str, meant: Address) -> None:
    assert address(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0.0.0.0:9712",
            "[::]:9712",
            "10.0.0.1:9712",
            "[fe80::1]:9712",
            "example.org:9712",
            ":9712",
            "9712",
            "",
            "::1",
        ),
        *("127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "127.1:80", "2130706433:80"),
        *("[::ffff:10.0.0.1]:80", "unix:", "unix:metrics.sock", "tcp:127.0.0.1:80"),
    ],
)
def test_an_address_that_others_could_reach_or_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        address(text)
    assert error.value.reason.code == "bad-metrics"
    assert "127.0.0.1:PORT" in error.value.reason.hint


async def test_a_port_that_somebody_else_has_is_an_error_that_says_so(metrics: Metrics) -> None:
    async with Exposition(metrics, _ANY) as first:
        with pytest.raises(UsageError, match="cannot listen"):
            await Exposition(metrics, Address("127.0.0.1", first.port)).__aenter__()


# --- HTTP -------------------------------------------------------------------------------------------------------------


async def _asked(served: Exposition, question: bytes) -> tuple[str, dict[str, str], bytes]:
    """Status line, header and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(question)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return status, dict(each.split(": ", 1) for each in fields), body


async def test_metrics_are_answered_and_the_connection_ends(metrics: Metrics) -> None:
    async with Exposition(metrics, _ANY) as served:
        status, header, body = await _asked(served, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == "HTTP/1.1 200 OK"
        assert header["Content-Type"].startswith("text/plain")
        assert int(header["Content-Length"]) == len(body)
        assert header["Connection"] == "close"
        assert b'vcpuctl_build_info{version="9.8.7"} 1.0' in body
        wanted = b"GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
        assert (await _asked(served, wanted))[1]["Content-Type"].startswith("application/openmetrics-text")
        status, header, body = await _asked(served, b"HEAD /metrics HTTP/1.0\r\n\r\n")
        assert (status, body) == ("HTTP/1.1 200 OK", b"")
        assert int(header["Content-Length"]) > 100


@pytest.mark.parametrize(
    ("question", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../x HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"\xff\x00\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics SSH-2.0\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 3 * LARGEST, 400),
    ],
)
async def test_other_questions_are_told_that_they_are(metrics: Metrics, question: bytes, status: int) -> None:
    async with Exposition(metrics, _ANY) as served:
        assert (await _asked(served, question))[0].startswith(f"HTTP/1.1 {status} ")


async def test_a_client_that_says_nothing_is_given_up_and_the_others_are_served_meanwhile(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "PATIENCE", 0.2)
    async with Exposition(metrics, _ANY) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /met")
        assert (await _asked(served, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.1 200 OK"
        assert await reader.read() == b"", "it was cut off"
        writer.close()
    assert b'vcpuctl_exposition_errors_total{way="http"} 1.0' in metrics.exposed()[0]


async def test_one_client_more_takes_the_place_of_the_one_that_has_not_asked_for_longest(metrics: Metrics) -> None:
    async with Exposition(metrics, _ANY) as served:
        waiting = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(CLIENTS)]
        await until(lambda: served._clients == CLIENTS)
        for number in range(3):
            status, _, _ = await _asked(served, b"GET /metrics HTTP/1.1\r\n\r\n")
            assert status == "HTTP/1.1 200 OK"
            if number == 0:
                assert await waiting[0][0].read() == b"", "the oldest was cut off"
                waiting[0][1].close()
        for reader, writer in waiting[1:]:
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK"), "and the others were not"
            writer.close()


async def test_so_many_clients_are_answered_at_once_and_no_more(metrics: Metrics) -> None:
    async with Exposition(metrics, _ANY) as served:
        served._clients = CLIENTS  # all of which have asked
        assert (await _asked(served, b""))[0] == "HTTP/1.1 503 Service Unavailable"
        served._clients = 0


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "m.sock"


def _text(path: Path) -> str:
    return path.read_text()


def _mode(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def test_a_unix_socket_is_its_owners_and_groups_and_goes_at_the_end(metrics: Metrics, socket_path: Path) -> None:
    for _ in range(2):
        async with Exposition(metrics, Address(path=str(socket_path))) as served:
            assert _mode(socket_path) == 0o660
            assert served.port == 0
            reader, writer = await asyncio.open_unix_connection(str(socket_path))
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            writer.close()
        assert _mode(socket_path) is None


@pytest.fixture
def kept(socket_path: Path) -> Path:
    socket_path.write_text("kept")
    return socket_path


async def test_what_lies_at_the_sockets_place_and_is_not_left_over_is_left_alone(metrics: Metrics, kept: Path) -> None:
    with pytest.raises(UsageError) as error:
        await Exposition(metrics, Address(path=str(kept))).__aenter__()
    assert error.value.reason.code == "bad-socket"
    assert _text(kept) == "kept"
