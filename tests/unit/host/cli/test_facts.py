# SPDX-License-Identifier: Apache-2.0
"""The facts that the man page is made from are true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import vcpu_host
import vcpu_proto
from vcpu_host.cli.facts import ENVIRONMENT, FILES, VM_FILE_KEYS
from vcpu_host.local import directory, target

#: What stands for the environment in our sources.
_ENVIRONMENTS = {"environment", "environ"}


def _read_by_us() -> set[str]:
    """The names of the environment variables that the host's programs read, in its own sources and in those it shares.

    A name that cannot be told from the source ends the test: whoever reads one writes it there.
    """
    return {
        name
        for package in (vcpu_host, vcpu_proto)
        for path in Path(str(package.__file__)).parent.rglob("*.py")
        if "environ" in (text := path.read_text())
        for name in _names(ast.parse(text), path)
    }


def _names(module: ast.Module, path: Path) -> Iterator[str]:
    """What is looked up in the environment: by get, by a subscript, or by whether it is there."""
    known = _constants(module)
    for node in ast.walk(module):
        asked: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_environment(node.func.value):
            asked = node.args[0] if node.func.attr in ("get", "pop", "setdefault") else None
        elif isinstance(node, ast.Subscript) and _is_environment(node.value):
            asked = node.slice
        elif isinstance(node, ast.Compare) and _is_environment(node.comparators[0]):
            asked = node.left
        if asked is None:
            continue
        found = [asked.value] if isinstance(asked, ast.Constant) else known.get(getattr(asked, "id", ""))
        assert found, f"{path}:{asked.lineno}: which variable is read here?"
        yield from map(str, found)


def _is_environment(node: ast.expr) -> bool:
    return getattr(node, "id", getattr(node, "attr", "")) in _ENVIRONMENTS


def _constants(module: ast.Module) -> dict[str, list[object]]:
    """The texts that a name stands for: one, several, or each of several in turn."""
    known: dict[str, list[object]] = {}

    def values(node: ast.expr) -> list[object]:
        if isinstance(node, ast.Tuple):
            return [value for each in node.elts for value in values(each)]
        return [node.value] if isinstance(node, ast.Constant) else known.get(getattr(node, "id", ""), [])

    for node in ast.walk(module):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            pairs = zip(node.targets[0].elts, node.value.elts, strict=False)
            known.update({target.id: values(value) for target, value in pairs if isinstance(target, ast.Name)})
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = values(node.value)
        elif isinstance(node, ast.comprehension) and isinstance(node.target, ast.Name):
            known.setdefault(node.target.id, []).extend(values(node.iter))
    return known


def test_every_environment_variable_that_is_read_is_told_and_no_other() -> None:
    assert {name for name, _ in ENVIRONMENT} == _read_by_us()


def test_the_keys_of_a_vms_file_are_told() -> None:
    assert {key for key, _ in VM_FILE_KEYS} == target._KEYS


def test_the_places_of_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [path for path, _ in FILES]
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/user")
    for each in target.directories():
        assert f"{each}/NAME.toml".replace("/home/user", "~") in told
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert str(directory.directory()) in told
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert str(directory.directory()).replace("/run/user/1000", "$XDG_RUNTIME_DIR") in told
    # Without the variable: what the session has made, else a directory of our own.
    words = dict(FILES)["$XDG_RUNTIME_DIR/vcpuctl"]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    found = []
    for there in (True, False):
        monkeypatch.setattr(directory, "is_ours", lambda path, there=there: there)
        found.append(str(directory.directory()).replace("1000", "UID"))
    assert words.index(found[0]) < words.index(found[1])


def test_what_is_told_as_the_same_stands_behind_what_it_is_the_same_as() -> None:
    told = [path for path, _ in FILES]
    for same, other in (("$XDG_RUNTIME_DIR/vcpuctl", "/run/vcpuctl"), (told[1], told[0])):
        assert told.index(same) == told.index(other) + 1
        assert dict(FILES)[same].startswith("The same ")
