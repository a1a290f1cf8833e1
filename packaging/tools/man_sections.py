# SPDX-License-Identifier: Apache-2.0
"""The sections of vcpuctl's man page that are made from the code: exit statuses, reasons, documents, fields, facts.

``packaging/man/vcpuctl.1.inc`` has a line ``@NAME@`` where each of them goes.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from vcpu_host.cli import facts
from vcpu_host.cli.exitcodes import Exit
from vcpu_host.core import codes, log_entry

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/json"


def fill(text: str) -> str:
    """Return the page's text with the sections in their places."""
    made = {
        "EXIT STATUS": exit_status(),
        "REASONS": reasons(),
        "JSON": documents(),
        "JOURNAL": told(log_entry.FIELDS.items(), "B"),
        "ENVIRONMENT": told(facts.ENVIRONMENT, "B"),
        "FILES": told(facts.FILES, "I"),
        "KEYS": told(facts.VM_FILE_KEYS, "B"),
    }
    for name, lines in made.items():
        if (mark := f"@{name}@\n") not in text:
            raise ValueError(f"the page has no line {mark!r}")
        text = text.replace(mark, "".join(f"{line}\n" for line in lines))
    return text


def exit_status() -> Iterator[str]:
    """Yield each status with its meaning."""
    words = meanings(Exit)
    yield from told(((str(status.value), words[status.name]) for status in Exit), "B")


def meanings(enumeration: type[IntEnum]) -> dict[str, str]:
    """Return what the source says below each member: strings that cost nothing when the program starts."""
    body = ast.parse(inspect.getsource(enumeration)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for member, words in zip(body.body, body.body[1:], strict=False):
        match member, words:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found


def reasons() -> Iterator[str]:
    """Yield each code with its meaning, in alphabetical order."""
    yield ".PD 0"  # no empty lines between: there are many
    yield from told(((code, code.meaning) for code in codes.table().values()), "B")
    yield ".PD"


def told(pairs: Iterable[tuple[str, str]], font: str) -> Iterator[str]:
    """Yield each name, in this font, with what is said of it."""
    for name, words in pairs:
        yield from (".TP", f".{font} {roff(name)}", roff(words))


def documents() -> Iterator[str]:
    """Yield each document of vcpuctl's with its fields; parts that several documents share come last."""
    for path in sorted(SCHEMAS.glob("*.schema.json")):
        name = path.name.removesuffix(".schema.json")
        if name in ("common", "vcpud-check"):
            continue
        schema = json.loads(path.read_text())
        yield from (".TP", f".BR {_words(schema['title'])}", f"{roff(schema['description'])} ({roff(path.name)})")
        own = {key: part for key, part in schema["properties"].items() if key != "schema_version"}
        yield from (".PD 0", *_fields(own, schema.get("$defs", {})), ".PD")
    yield from (".PP", "Parts of several documents:")
    for name, part in json.loads((SCHEMAS / "common.schema.json").read_text())["$defs"].items():
        if "properties" in part:
            yield from (".TP", f".I {roff(name)}", roff(part["description"]))
            yield from (".PD 0", *_fields(part["properties"], {}), ".PD")


def _words(title: str) -> str:
    """The commands of a title for a macro that alternates between bold and roman."""
    return " ".join(f'"{roff(word)}" ", "' for word in title.split(", ")).removesuffix(' ", "')


def _fields(fields: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[str]:
    """Yield one paragraph a field, further in; ``shared`` are the document's own parts."""
    yield ".RS"
    for name, part in fields.items():
        yield from (".TP", f".B {roff(name)}", roff(_told(name, part)))
        inside = _inside(part, shared)
        if inside:
            yield from _fields(inside, shared)
    yield ".RE"


def _told(name: str, part: Mapping[str, Any]) -> str:
    """What is said of a field: its description, the part it refers to, and its words."""
    shared = _reference(part)
    common = json.loads((SCHEMAS / "common.schema.json").read_text())["$defs"].get(shared, {})
    words = part.get("enum") or common.get("enum") or []
    said = [part.get("description") or common.get("description", "")]
    if "properties" in common and shared != name:
        said.append(f"See {shared}.")
    if words:
        said.append(f"One of {', '.join('null' if word is None else word for word in words)}.")
    return " ".join(said)


def _reference(part: Mapping[str, Any]) -> str:
    """The name of the common part that the field is, or has several of, or may be; empty if none."""
    choices = [part, part.get("items", {}), *part.get("anyOf", ())]
    found = [choice["$ref"] for choice in choices if "$ref" in choice]
    return found[0].partition("common.schema.json#/$defs/")[2] if found else ""


def _inside(part: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of the objects that the field is, or has several of, as far as this document has them alone."""
    for choice in (part, part.get("items", {}), *part.get("anyOf", ())):
        found = shared.get(choice.get("$ref", "").removeprefix("#/$defs/"), choice)
        if "properties" in found:
            fields: Mapping[str, Any] = found["properties"]
            return fields
    return {}


def roff(text: str) -> str:
    """Return the text as a line of a page: no character of it is a command."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
