# SPDX-License-Identifier: Apache-2.0
"""The facts that the man page is made from are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import vcpu_host
from vcpu_host.cli.facts import ENVIRONMENT, FILES, VM_FILE_KEYS
from vcpu_host.local import directory, target

#: Tells of variables, and of the journal's fields, one of which has a variable's name.
_TELLING = {"facts.py", "log_entry.py"}
#: Read by the libraries that lay text out, not by us.
_BY_LIBRARIES = {"COLUMNS"}


def _read_by_us() -> set[str]:
    """The names of environment variables in the sources."""
    texts = [path.read_text() for path in Path(vcpu_host.__file__).parent.rglob("*.py") if path.name not in _TELLING]
    return {
        name
        for text in texts
        for name in re.findall(r"\"(VCPUCTL_[A-Z]+|XDG_[A-Z_]+|NO_COLOR|TERM|LIBVIRT_DEFAULT_URI)\"", text)
    }


def test_every_environment_variable_that_is_read_is_told_and_no_other() -> None:
    assert {name for name, _ in ENVIRONMENT} == _read_by_us() | _BY_LIBRARIES


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
