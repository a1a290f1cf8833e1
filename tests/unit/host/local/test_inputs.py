# SPDX-License-Identifier: Apache-2.0
"""Documents that users hand in, and the words for what is wrong with one."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vcpu_host.local.inputs import InputError, json_document, text, toml_table, why

_MOST = 1 << 20
_DEEP = "[" * 100_000
_LONG = "9" * 5000


def test_a_file_and_standard_input_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text('{"a": 1}')
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1}'))
    assert json_document(str(tmp_path / "f"), _MOST) == json_document("-", _MOST) == {"a": 1}
    (tmp_path / "f").write_text("a = 1")
    assert toml_table(str(tmp_path / "f"), _MOST) == {"a": 1}


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (json_document, _DEEP, "it is nested too deeply"),
        (json_document, _LONG, "a number in it is too long"),
        (toml_table, f"a = {_DEEP}", "it is nested too deeply"),
        (toml_table, f"a = {_LONG}", "a number in it is too long"),
        (json_document, "{", "line 1"),
        (toml_table, "a", "at end of document"),
        (text, "x" * (_MOST + 1), f"it has more than {_MOST} characters"),
        (json_document, " " * (_MOST + 1), f"it has more than {_MOST} characters"),
    ],
)
def test_what_is_wrong_with_a_document_is_said_in_plain_words(
    read: Callable[[str, int], Any], content: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text(content)
    with pytest.raises(InputError) as error:
        read(str(tmp_path / "f"), _MOST)
    said = str(error.value)
    assert words in said
    assert not any(word in said for word in ("recursion", "sys.", "Error", "codec"))


@pytest.mark.parametrize("read", [text, json_document, toml_table])
def test_a_file_that_is_not_there_or_is_no_text_is_said_to_be_that(
    read: Callable[[str, int], Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"^No such file or directory$"):
        read(str(tmp_path / "none"), _MOST)
    (tmp_path / "f").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"^it is no text in UTF-8$"):
        read(str(tmp_path / "f"), _MOST)


def test_the_words_are_those_for_the_cause_where_that_is_an_error_of_pythons_own() -> None:
    def raised(cause: Exception) -> str:
        error = ValueError(f"no export: {cause!r}")
        error.__cause__ = cause
        return why(error)

    assert raised(KeyError("vm")) == "vm is missing"
    assert (
        raised(TypeError("'int' object is not subscriptable"))
        == "a value in it is of another kind than is expected there"
    )
    assert raised(ValueError("it has no slot")).startswith("no export: ")
    assert why(ValueError("it has no slot")) == "it has no slot"
