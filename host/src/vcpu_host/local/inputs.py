# SPDX-License-Identifier: Apache-2.0
"""Documents that users hand in, JSON or TOML: read within bounds, with plain words for what is wrong with one."""

from __future__ import annotations

import sys
from typing import Any

#: What Python says of a number that has more digits than it reads (sys.set_int_max_str_digits).
_TOO_MANY_DIGITS = "set_int_max_str_digits"


class InputError(ValueError):
    """A document that cannot be read. Its text says why, for people."""


def text(path: str, most: int) -> str:
    """Return what the file says, or standard input for "-". Raise InputError; ``most`` is in characters."""
    try:
        if path == "-":
            found = sys.stdin.read(most + 1)
        else:
            with open(path, encoding="utf-8") as file:
                found = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise InputError(why(error)) from error
    if len(found) > most:
        raise InputError(f"it has more than {most} characters")
    return found


def json_document(path: str, most: int) -> Any:
    """Return the JSON document of the file, or of standard input for "-". Raise InputError."""
    import json

    try:
        return json.loads(text(path, most))
    except (ValueError, RecursionError) as error:
        raise InputError(why(error)) from error


def toml_table(path: str, most: int) -> dict[str, Any]:
    """Return the TOML table of the file, or of standard input for "-". Raise InputError."""
    import tomllib

    try:
        return tomllib.loads(text(path, most))
    except (ValueError, RecursionError) as error:
        raise InputError(why(error)) from error


def why(error: BaseException) -> str:
    """Return in plain words what is wrong with a document that this error came of, or of its causes."""
    cause: BaseException | None = error
    while cause is not None:
        words = _plain(cause)
        if words:
            return words
        cause = cause.__cause__
    return str(error)


def _plain(error: BaseException) -> str:
    """Return the words for an error of Python's own; empty for one whose text is for people."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    if isinstance(error, TypeError):
        return "a value in it is of another kind than is expected there"
    if isinstance(error, UnicodeError):
        return "it is no text in UTF-8"
    return "a number in it is too long" if _TOO_MANY_DIGITS in str(error) else ""
