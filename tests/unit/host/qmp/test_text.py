# SPDX-License-Identifier: Apache-2.0
"""What QEMU says, in our hands: cleaned, and explained where it needs to be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.reason import Origin
from vcpu_host.qmp import traps
from vcpu_host.qmp.traps import bad_reply, explain, lacks_ospm, lacks_property
from vcpu_host.qmp.words import clean


@given(st.text(max_size=2000))
def test_no_text_of_qemus_can_move_a_terminals_cursor_or_fill_its_screen(text: str) -> None:
    shown = clean(text, 100)
    assert shown.isprintable()
    assert len(shown) <= 100


def test_an_escape_sequence_loses_its_escape_and_a_newline_becomes_a_space() -> None:
    assert clean("a\x1b[31mb\nc\u202ed") == "a?[31mb c?d"


# The words are QEMU's, as 7.2 and 10.0 gave them or as its source has them.
KNOWN = [
    ("Boot CPU is unpluggable", "boot-cpu"),
    ("Boot CPU core may not be unplugged", "boot-cpu"),
    ("acpi: device unplug request for not supported device type: qemu64-x86_64-cpu", "guest-not-ready"),
    ("cpu hotplug with SMI wasn't enabled by firmware", "firmware-no-hotplug"),
    ("cpu hot-unplug with SMI wasn't enabled by firmware", "firmware-no-unplug"),
    ("CPU hot unplug not supported without ACPI", "no-acpi"),
    ("CPU hot unplug not supported on this machine", "no-unplug"),
    ("device_add not allowed while migrating", "migrating"),
    ("device_del not allowed while migrating", "migrating"),
    ("Duplicate device ID 'vcpu-1'", "duplicate-id"),
    ("CPU[1] with APIC ID 1 exists", "slot-occupied"),
    ("core 2 already populated", "slot-occupied"),
    ("Unable to add CPU with core-id: 2, it already exists", "slot-occupied"),
    ("Invalid CPU core-id: 99 must be in range 0:3", "out-of-range"),
    ("Unable to add CPU with core-id: 9, maximum core-id: 3", "out-of-range"),
    ("invalid core id 99", "out-of-range"),
    ("CPU socket-id is not set", "props-missing"),
    ("invalid node-id, must be 0", "wrong-node"),
    ("Invalid CPU type, expected cpu type: 'qemu64-x86_64-cpu'", "wrong-type"),
    ("CPU core type should be POWER9-spapr-cpu-core", "wrong-type"),
    ("Parameter 'driver' expects a pluggable device type", "no-hotplug"),
    ("machine does not support hot-plugging CPUs", "no-hotplug"),
    ("The feature 'query-hotpluggable-cpus' is not enabled", "no-hotplug"),
    ("The command query-kvm has not been found", "no-such-command"),
]


@pytest.mark.parametrize(("desc", "code"), KNOWN)
def test_a_known_error_keeps_qemus_words_and_gets_a_code_and_a_hint(desc: str, code: str) -> None:
    error = explain("device_add", "GenericError", desc)
    assert (error.reason.code, error.reason.text) == (code, desc)
    assert error.reason.hint


def test_firmware_is_named_as_the_one_that_refuses() -> None:
    assert (
        explain("device_add", "GenericError", "cpu hotplug with SMI wasn't enabled by firmware").reason.who
        is Origin.FIRMWARE
    )


def test_an_unknown_error_passes_with_its_class_its_words_and_the_command() -> None:
    error = explain("device_add", "KVMMissingCap", "no\x1bidea")
    assert error.qmp_class == "KVMMissingCap"
    assert (error.reason.code, error.reason.who) == ("qemu-error", Origin.QEMU)
    assert error.reason.text == "no?idea (in answer to device_add)"


def test_a_device_that_is_not_there_has_the_code_that_the_core_waits_for() -> None:
    assert explain("device_del", "DeviceNotFound", "Device 'x' not found").reason.code == "device-not-found"


def test_an_object_without_a_property_is_told_from_one_that_refuses_it() -> None:
    told = explain("qom-get", "GenericError", "Property 'pc-q35-10.0-machine.vsmt' not found")
    assert lacks_property(told, "vsmt")
    assert not lacks_property(told, "acpi")
    assert lacks_property(explain("qom-get", "DeviceNotFound", "Device '/machine/x' not found"), "acpi")


def test_a_machine_without_acpi_is_told_from_another_refusal() -> None:
    command = "query-acpi-ospm-status"
    assert lacks_ospm(explain(command, "GenericError", "command is not supported, missing ACPI device"))
    assert lacks_ospm(explain(command, "CommandNotFound", f"The command {command} has not been found"))
    assert not lacks_ospm(explain(command, "GenericError", "no idea"))


def test_no_other_module_reads_qemus_words() -> None:
    """A program that goes by words goes by one table of them: this one is QEMU's, ``libvirt/words.py`` libvirt's."""
    readers = [
        f"{path.name}:{node.lineno}"
        for path in Path(traps.__file__).parents[1].rglob("*.py")
        if path.name not in ("traps.py", "words.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and any(_is_text_of_a_reason(side) for side in (node.left, *node.comparators))
    ]
    assert readers == []


def _is_text_of_a_reason(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(attr="text", value=ast.Attribute(attr="reason")):
            return True
    return False


def test_a_bad_reply_is_bounded() -> None:
    assert len(bad_reply("query-status", "x" * 10_000).reason.text) < 500
