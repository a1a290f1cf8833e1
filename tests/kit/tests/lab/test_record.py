# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import time

import pytest
from kit.lab.record import Record

OLD = ("{pid}@{seconds:.6f}:", "write addr 0x{addr:02x} val 0x{value:02x}")
NEW = ("{date}Z ", "[0x{addr:02x}] <- 0x{value:02x}")


def _stamp(form: tuple[str, str], now: float) -> str:
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
    return form[0].format(pid=7, seconds=now, date=date)


def _serial(form: tuple[str, str], now: float, writes: list[tuple[int, int]]) -> str:
    prefix = _stamp(form, now)
    return "".join(prefix + "serial_write " + form[1].format(addr=a, value=v) + "\n" for a, v in writes)


def _read(text: str) -> Record:
    record = Record(io.BytesIO(text.encode()))
    record.join(10.0)
    assert record.ended
    return record


@pytest.mark.parametrize("form", [OLD, NEW], ids=["QEMU 10.0", "QEMU 11.1"])
def test_commands_and_console_lines_come_out_on_one_monotonic_clock(form: tuple[str, str]) -> None:
    wall, monotonic = time.time(), time.monotonic()
    command = _stamp(form, wall + 2) + 'handle_qmp_command mon 0x55aa req: {"execute": "device_del", "id": "a b"}\n'
    line = _serial(form, wall + 1, [(0, byte) for byte in b"CPU 1 is now offline\r\n"])
    record = _read(line + command)
    ((offline, text),) = record.kernel_log
    ((deleted, request),) = record.commands
    assert text == "CPU 1 is now offline"
    assert request == {"execute": "device_del", "id": "a b"}
    assert offline == pytest.approx(monotonic + 1, abs=0.5)
    assert deleted - offline == pytest.approx(1.0, abs=0.001)


def test_writes_to_other_registers_and_the_divisor_are_not_text() -> None:
    setup = [(1, 0x41), (3, 0x83), (0, 0x41), (3, 0x03), (0, 0x42), (0, 0x0A)]
    assert [text for _, text in _read(_serial(OLD, time.time(), setup)).kernel_log] == ["B"]


def test_an_unfinished_line_is_not_shown_yet() -> None:
    assert _read(_serial(OLD, time.time(), [(0, 0x41)])).kernel_log == []


def test_a_command_traced_in_the_middle_of_a_warning_is_recorded_and_the_warning_kept_whole() -> None:
    cut = _stamp(OLD, time.time()) + 'handle_qmp_command mon 0x55aa req: {"execute": "stop"}\n'
    record = _read("2026-11-22T23:11:57.569644Z qemu: warning: " + cut + "something\n")
    assert [request for _, request in record.commands] == [{"execute": "stop"}]
    assert record.messages == ["2026-11-22T23:11:57.569644Z qemu: warning: something"]


def test_all_else_is_kept_as_qemus_own_words() -> None:
    record = _read("qemu: warning: something\n")
    assert record.messages == ["qemu: warning: something"]
    assert "something" in record.tail()
