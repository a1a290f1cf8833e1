# SPDX-License-Identifier: Apache-2.0
"""The table of codes: one place, each code once, each with a meaning, none that nobody gives."""

import ast
import copy
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import vcpu_host
from vcpu_host.core import codes
from vcpu_host.core.codes import Code
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.reason import Origin, Reason
from vcpu_proto.link import LinkError, UnreachableError
from vcpu_proto.link.errors import BusyError, NoAnswerError, PeerGoneError, VersionError

SOURCE = Path(vcpu_host.__file__).parent
NAMED = {name: code for name, code in vars(codes).items() if isinstance(code, Code)}
#: Where a call takes its code: by its place among the arguments.
PLACE_OF_CODE = {"Reason": 0, "Finding": 1, "_problem": 0, "_trap": 1, "_usage": 0}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_code_says_what_it_means_in_one_sentence(name: str) -> None:
    code = NAMED[name]

    assert code.meaning.endswith(".")
    assert len(code.meaning) > 10
    assert ". " not in code.meaning
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", code)
    assert name == code.upper().replace("-", "_")


def test_no_two_names_have_one_code() -> None:
    assert len(codes.table()) == len(NAMED)
    assert list(codes.table()) == sorted(codes.table())


def test_a_code_is_its_text_wherever_it_goes() -> None:
    code = codes.AGENT_LOST

    assert code == "agent-lost"
    assert hash(code) == hash("agent-lost")
    assert json.dumps([code]) == '["agent-lost"]'
    assert repr(code) == "'agent-lost'"
    assert copy.deepcopy(code) == pickle.loads(pickle.dumps(code)) == code


def test_a_code_that_nobody_knows_has_no_meaning() -> None:
    assert codes.meaning("from-next-year") == ""
    assert codes.meaning("agent-lost") == codes.AGENT_LOST.meaning != ""


def test_an_agent_of_next_year_may_send_a_code_that_is_not_in_the_table() -> None:
    assert Reason("from-next-year", Origin.AGENT, "x").code == "from-next-year"
    assert Finding(Level.NOTE, "from-next-year", "x").code == "from-next-year"


def test_no_code_is_written_out_but_in_the_table() -> None:
    written = [f"{path.relative_to(SOURCE)}:{line}" for path in sources() for line in literals(path.read_text())]

    assert written == []


@pytest.mark.parametrize(
    "source",
    [
        'Reason("no-vm", Origin.VCPUCTL, "x")',
        'Finding(Level.OK, "qemu", "x")',
        'RunState("x", "y", code="vm-moved")',
        'error.reason.code == "no-vm"',
        'error.reason.code in ("no-vm", "two-vms")',
    ],
)
def test_a_code_that_is_written_out_is_found(source: str) -> None:
    assert list(literals(source)) == [1]


def test_every_code_is_given_by_somebody() -> None:
    used = {
        node.attr
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "codes"
    }
    links = {error.code for error in (UnreachableError, BusyError, NoAnswerError, VersionError, PeerGoneError)}

    assert {code for name, code in NAMED.items() if name not in used} - links == guests_own()


def test_what_the_link_raises_has_a_code_of_the_table() -> None:
    raised = {error.code for error in LinkError.__subclasses__()}

    assert raised - codes.table().keys() == {"session-lost"}  # which of_link makes agent-lost


def sources() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if path.name != "codes.py"]


def guests_own() -> set[str]:
    """What stands below the agent's heading in the table, as far as the host does not give it itself."""
    text = Path(codes.__file__).read_text().partition("# What the agent says of one CPU")[2].partition("\n\n")[0]
    names = re.findall(r"^([A-Z0-9_]+) = Code", text, re.MULTILINE)
    return {str(NAMED[name]) for name in names} - {codes.SMT_OFF, codes.HOTPLUG_DISABLED}


def literals(text: str) -> Iterator[int]:
    """The lines on which a string stands where a code belongs."""
    for node in ast.walk(ast.parse(text)):
        places: list[ast.expr] = []
        match node:
            case ast.Call(func=ast.Name(id=name)) if len(node.args) > PLACE_OF_CODE.get(name, 99):
                places = [node.args[PLACE_OF_CODE[name]]]
            case ast.Compare(left=ast.Attribute(attr="code")):
                places = node.comparators
        if isinstance(node, ast.Call):
            places += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        for place in places:
            if any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(place)):
                yield place.lineno
