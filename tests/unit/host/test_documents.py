# SPDX-License-Identifier: Apache-2.0
"""The documents and their schemas: what is promised of each field, and that the promise is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Any

import jsonschema
import pytest
from kit import documents as held
from kit.sim.plans import planned
from kit.sim.views import INFO, vm
from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.domains import AgentChannel, Definition, Domains, ListedDomain
from vcpu_host.core.domains import join as join_domains
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.log_entry import Caller, Subject, fields, read
from vcpu_host.core.migration.compare import Comparison, Difference
from vcpu_host.core.migration.export import arguments
from vcpu_host.core.migration.shape import Shape
from vcpu_host.core.model import SlotState
from vcpu_host.core.operation.result import OperationResult, SlotResult
from vcpu_host.core.planning.plan import OnWorkload, Operation, Request, StepKind
from vcpu_host.core.qemu_argv import CommandLine
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import join as join_view
from vcpu_host.core.view import with_pending
from vcpu_host.core.vms import Configured, Monitor, Process, Vms, join
from vcpu_host.core.workload.model import Note, Who
from vcpu_host.documents.autoscale import of_autoscale
from vcpu_host.documents.domains import of_channel, of_domains
from vcpu_host.documents.vms import of_vms
from vcpu_host.vm.migration_target import Prepared
from vcpu_host.vm.numa_assign import Assigned

_VIEW = with_pending(vm(3, {0, 1}), [Intent(IntentKind.UNPLUG, 1, "vcpu-1", 0.0)])
_DEAF = INFO._replace(environment=INFO.environment._replace(unhandled_gpes=(2,)))
_WHY = Reason(codes.QEMU_GONE, Origin.QEMU, "because")
_LACKS = Difference(Finding(Level.PROBLEM, codes.CPU_MISSING, "x"), 1, "a", "b", curable=True)
_NOTE = Note(Level.WARNING, codes.PINNED_THREADS, "x", "y", (1,), 1, (Who(812, 813, "db", "db.service", "/db"),))
_RESULT = OperationResult(
    Request(Operation.PLUG, 1, workload=OnWorkload.WARN),
    Outcome.DONE,
    (SlotResult(1, "vcpu-1", Outcome.DONE, _WHY, {"add": 0.1}, (4,)),),
    1.0,
    notes=(_NOTE,),
)


_STAMP = {"__REALTIME_TIMESTAMP": "1795920926494275"}


def _export() -> dict[str, Any]:
    shape = Shape.of(_VIEW.host, (Intent(IntentKind.PLUG, 2, "vcpu-2", 1.5),), {"virtio-blk-device.num-queues": (1,)})
    shape = replace(shape, topology={"cpus": 2, "sockets": 1, "maxcpus": 3})
    return documents.of_export(shape, arguments(shape))


def _vms() -> Vms:
    """One VM that is configured and runs, one that is not, a file that is wrong, and something that is not seen."""
    files = [Configured("web1", "/d/web1.toml", "/q", key="1"), Configured("web2", "/d/web2.toml", trouble=_WHY)]
    running = [
        Process(pid, "ada", pid, CommandLine("web"), (Monitor("/q", "/q", key=str(pid)), Monitor("/x", None, _WHY)))
        for pid in (1, 2)
    ]
    return join(files, running, _WHY, "/d")


def _domains() -> Domains:
    """A domain that is configured, and one that is not and lacks everything."""
    listed = [ListedDomain("a", "u-1", "running", True, 1, 4, channel=True, connected=True)]
    listed.append(ListedDomain("b", "u-2", "shutoff", False, trouble=_WHY))
    files = [Configured("a", "/d/a.toml", libvirt="qemu:///system", domain="a")]
    return join_domains("qemu:///system", listed, files, "/d")


def _members() -> list[dict[str, Any]]:
    """Of a VM that is done, of one that has been planned for, of one that was looked at, and of one that has failed."""
    answers = [documents.of_result(_RESULT), documents.of_plan(planned(_VIEW, "scale", 3)), documents.of_view(_VIEW)]
    members = [documents.of_member("web1", 4, answer, None, 0) for answer in answers]
    found = documents.of_findings([Finding(Level.OK, codes.QEMU, "x")])
    return [*members, documents.of_member("web2", None, found, None, 0), documents.of_member("w", 1, None, _WHY, 5)]


def _made() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "list", documents.of_view(_VIEW)
    yield "list", documents.of_view(join_view(_VIEW.host, _VIEW.guest, agent=_DEAF))
    yield "plan", documents.of_plan(planned(_VIEW, "scale", 3))
    yield "plan", documents.of_plan(planned(_VIEW, "plug", 99))
    yield "operation", documents.of_result(_RESULT)
    yield "doctor", documents.of_findings([Finding(Level.OK, codes.QEMU, "x")])
    yield "export", _export()
    yield "migrate-check", documents.of_comparison(Comparison((_LACKS,)), Outcome.REFUSED)
    yield "migrate-prepare", documents.of_prepared(Prepared(Outcome.DONE, Comparison((_LACKS,)), reason=_WHY))
    yield "numa-assign", documents.of_assigned(Assigned(Outcome.DONE, _VIEW.host.slots, dict.fromkeys(range(3), 0)))
    entry = read({**dict(fields(Subject("x", "y"), Caller(0), documents.of_result(_RESULT), None, None)), **_STAMP})
    yield "log", documents.of_log([entry], 1, complete=False)
    yield "vms", of_vms(_vms())
    yield "vms", of_vms(join([], [], None, "/d"))
    yield "domains", of_domains(_domains())
    yield "domains", of_domains(join_domains("qemu:///system", [], [], "/d"))
    for definition in (None, Definition(channel=True, added=True), Definition(channel=False, reason=_WHY)):
        yield "channel", of_channel(AgentChannel("<channel/>", "qemu:///system", "d", "u", definition, definition))
    yield "fleet", documents.of_fleet("apply", _members(), 4, 1.5, dry_run=False)
    yield "error", documents.of_error(_WHY, 5)
    yield "autoscale", of_autoscale([("web", _WHY)])


@pytest.mark.parametrize(("name", "document"), list(_made()))
def test_a_document_is_what_its_schema_says(name: str, document: dict[str, Any]) -> None:
    written = json.loads(documents.text(document))

    assert written["schema_version"] == documents.SCHEMA_VERSION
    assert held.kind_of(written) == name
    held.check(written)


def test_there_is_a_schema_for_each_document_and_no_other() -> None:
    assert held.names() == sorted({*(name for name, _ in _made()), "vcpud-check"})


def test_the_page_of_the_schemas_tells_each_of_them() -> None:
    page = (held.SCHEMAS / "README.md").read_text()

    assert [name for name in held.names() if f"({name}.schema.json)" not in page] == []


@pytest.mark.parametrize("change", [{"elapsed": "1"}, {"outcome": "fine"}, {"new_field": 1}, {"slots": [{}]}])
def test_a_document_that_differs_from_its_schema_is_found(change: dict[str, Any]) -> None:
    document = {"schema_version": 1, **documents.of_result(_RESULT), **change}

    with pytest.raises(AssertionError, match="operation"):
        held.check(document)


@pytest.mark.parametrize("field", sorted(documents.of_result(_RESULT)))
def test_a_field_that_is_missing_is_found(field: str) -> None:
    document = {"schema_version": 1, **documents.of_result(_RESULT)}
    del document[field]

    with pytest.raises(AssertionError):
        held.check(document)


def test_a_code_without_a_meaning_is_found() -> None:
    with pytest.raises(AssertionError, match="no-such-code"):
        held.check({"schema_version": 1, **documents.of_error(Reason("no-such-code", Origin.QEMU, "x"), 1)})


def test_readers_get_documents_with_fields_that_they_do_not_know_yet() -> None:
    schema = held.schema("error")

    assert "additionalProperties" not in json.dumps(schema)


@pytest.mark.parametrize("name", [*held.names(), "common"])
def test_a_schema_is_one_and_describes_every_field(name: str) -> None:
    schema = held.schema(name)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert schema["description"]
    assert [field for field, told in _fields(schema) if not told] == []


@pytest.mark.parametrize(
    ("words", "name", "path"),
    [
        (Outcome, "common", ("outcome",)),
        (Origin, "common", ("reason", "properties", "who")),
        (Level, "common", ("finding", "properties", "level")),
        (SlotState, "list", ("slot", "properties", "state")),
        (StepKind, "plan", ("step", "properties", "step")),
    ],
)
def test_the_words_of_a_field_are_those_of_the_code(words: type[StrEnum], name: str, path: tuple[str, ...]) -> None:
    part = held.schema(name)["$defs"]
    for step in path:
        part = part[step]

    assert part["enum"] == list(words)


def test_every_code_that_a_schema_lets_pass_can_be_one_of_the_table() -> None:
    pattern = held.schema("common")["$defs"]["code"]

    for code in codes.table():
        jsonschema.validate(code, pattern)


def _fields(part: Any) -> Iterator[tuple[str, bool]]:
    """Every field, and whether it is described, where it stands or where it refers to."""
    if isinstance(part, list):
        for each in part:
            yield from _fields(each)
    elif isinstance(part, dict):
        for name, field in part.get("properties", {}).items():
            shared = held.schema("common")["$defs"].get(field.get("$ref", "").partition("#/$defs/")[2], {})
            yield name, bool(field.get("description") or shared.get("description"))
        for each in part.values():
            yield from _fields(each)
