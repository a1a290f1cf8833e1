# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from vcpu_proto.lean import standing_in, without

_NAME = "wanted_by_nobody"


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{_NAME}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, _NAME, raising=False)


def test_in_the_block_the_module_is_not_installed_and_after_it_the_module_is() -> None:
    with without(_NAME), pytest.raises(ImportError):
        importlib.import_module(_NAME)
    assert importlib.import_module(_NAME).__name__ == _NAME


def test_after_an_error_in_the_block_the_module_is_installed_again() -> None:
    with pytest.raises(ZeroDivisionError), without(_NAME):
        1 / 0  # noqa: B018
    assert importlib.import_module(_NAME).__name__ == _NAME


def test_what_the_process_has_stays() -> None:
    module = importlib.import_module(_NAME)
    with without(_NAME):
        assert importlib.import_module(_NAME) is module
    assert sys.modules[_NAME] is module


def test_in_the_block_another_module_has_the_name_and_after_it_the_real_one() -> None:
    with standing_in(_NAME, Wanted=object):
        assert importlib.import_module(_NAME).Wanted is object
    assert importlib.import_module(_NAME).__file__


def test_after_an_error_in_the_block_the_real_one_has_the_name() -> None:
    with pytest.raises(ImportError), standing_in(_NAME):
        from wanted_by_nobody import What  # type: ignore[import-not-found]  # noqa: F401
    assert importlib.import_module(_NAME).__file__


def test_nothing_stands_in_for_what_the_process_has() -> None:
    module = importlib.import_module(_NAME)
    with standing_in(_NAME, Wanted=object):
        assert importlib.import_module(_NAME) is module
    assert sys.modules[_NAME] is module
