# SPDX-License-Identifier: Apache-2.0
"""The library's door: all of its names are there, and none is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import vcpu_host


@pytest.mark.parametrize("name", vcpu_host.__all__)
def test_every_name_of_the_library_is_there_and_has_a_docstring(name: str) -> None:
    value = getattr(vcpu_host, name)
    assert value.__name__ == name
    assert value.__doc__


def test_dir_lists_the_names_that_were_not_imported_yet() -> None:
    assert set(vcpu_host.__all__) <= set(dir(vcpu_host))


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Journal'"):
        _ = vcpu_host.Journal


def test_importing_the_package_imports_none_of_its_modules_and_no_event_loop() -> None:
    script = "import sys, vcpu_host; print([n for n in sys.modules if n.startswith(('vcpu_host.', 'asyncio', 'grpc'))])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
