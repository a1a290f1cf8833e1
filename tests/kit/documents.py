# SPDX-License-Identifier: Apache-2.0
"""Holds the documents that tests see against their schemas (docs/json).

The schemas let fields be added, for the sake of those who read newer documents. Tests do not: a field that a schema
does not have is one that nobody has described.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource
from vcpu_host.core import codes

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/json"
_SUFFIX = ".schema.json"
#: Documents that name themselves; every other "operation" is one on a VM's slots.
_OPERATIONS = ("migrate-check", "migrate-prepare", "numa-assign")


def names() -> list[str]:
    """The documents that have schemas of their own."""
    found = sorted(path.name.removesuffix(_SUFFIX) for path in SCHEMAS.glob(f"*{_SUFFIX}"))
    return [name for name in found if name != "common"]


def kind_of(document: dict[str, Any]) -> str:
    """Which of them this one is."""
    for field, name in (
        ("error", "error"),
        ("findings", "doctor"),
        ("refusals", "plan"),
        ("initial_vcpus", "export"),
        ("cpus", "vcpud-check"),
        ("skipped", "log"),
        ("processes", "vms"),
        ("domains", "domains"),
        ("channel_xml", "channel"),
        ("command", "fleet"),
    ):
        if field in document:
            return name
    operation = document.get("operation")
    if operation is None:
        return "autoscale" if "vms" in document else "list"
    return operation if operation in _OPERATIONS else "operation"


def check(document: Any, *, foreign: bool = False) -> None:
    """The document is what its schema says, has no other field, and its codes are known. AssertionError if not.

    ``foreign``: codes may be there that nobody knows: of an agent that lies, or that a test has made up.
    """
    assert isinstance(document, dict), f"no document: {document!r:.200}"
    name = kind_of(document)
    error = jsonschema.exceptions.best_match(_validator(name).iter_errors(document))
    assert error is None, f"{name}: {error.json_path}: {error.message:.500}\n{json.dumps(document)[:2000]}"
    unknown = set(_codes(document)) - codes.table().keys()
    assert foreign or not unknown, f"{name}: codes without a meaning: {sorted(unknown)}"


def check_output(stdout: str | bytes, *, foreign: bool = False) -> None:
    """Every whole line of a command's standard output that is a document is what its schema says."""
    text = stdout.decode() if isinstance(stdout, bytes) else stdout
    for line in text.splitlines(keepends=True):
        if line.startswith('{"schema_version"') and line.endswith("\n"):
            check(json.loads(line), foreign=foreign)


def checked(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The function, whose every document is held against its schema."""

    @functools.wraps(make)
    def made(*values: Any) -> dict[str, Any]:
        document = make(*values)
        check({"schema_version": 1, **json.loads(json.dumps(document))}, foreign=True)
        return document

    return made


def schema(name: str) -> dict[str, Any]:
    """The schema as it is shipped."""
    loaded: dict[str, Any] = json.loads((SCHEMAS / (name + _SUFFIX)).read_text())
    return loaded


@functools.cache
def _validator(name: str) -> Any:
    """For documents without fields that the schema does not have."""
    registry = Registry().with_resources(
        (path.name, Resource.from_contents(_closed(json.loads(path.read_text()))))
        for path in SCHEMAS.glob(f"*{_SUFFIX}")
    )
    return jsonschema.Draft202012Validator({"$ref": name + _SUFFIX}, registry=registry)


def _closed(part: Any) -> Any:
    """The schema, in which objects have the fields that it names and no others."""
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    closed = {key: _closed(value) for key, value in part.items()}
    if "properties" in closed and isinstance(closed.get("required"), list):
        closed.setdefault("additionalProperties", False)
    return closed


def _codes(part: Any) -> Iterator[str]:
    """Of every reason and finding in a document."""
    if isinstance(part, list):
        for each in part:
            yield from _codes(each)
    elif isinstance(part, dict):
        if "code" in part and "text" in part:
            yield part["code"]
        for each in part.values():
            yield from _codes(each)
