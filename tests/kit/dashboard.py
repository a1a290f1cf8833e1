# SPDX-License-Identifier: Apache-2.0
"""A Grafana dashboard, held against Grafana's own model of one.

grafana-foundation-sdk is made by Grafana Labs from Grafana's schemas. It reads any JSON, drops the fields that Grafana
does not have, and looks at no value; so what went in is compared with what comes out, and each value with its type.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def faults(document: dict[str, Any]) -> list[str]:
    """Return what Grafana would not understand of a dashboard."""
    plugins.register_default_plugins()
    whole = Dashboard.from_json(document)
    back = json.loads(JSONEncoder().encode(whole))
    return [*_lost(document, back, ""), *_inside(whole, "")]


def _lost(given: Any, back: Any, path: str) -> Iterator[str]:
    """Yield what was there and is not any more, or is another."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            if key in back:
                yield from _lost(value, back[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}: Grafana has no such field"
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for place, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from _lost(one, other, f"{path}[{place}]")
    elif given != back:
        yield f"{path}: {given!r} becomes {back!r}"


def _inside(value: Any, path: str) -> Iterator[str]:
    """Yield the faults of each field of a part of the model."""
    hints = typing.get_type_hints(type(value))
    for name, each in vars(value).items():
        yield from _typed(each, hints.get(name, Any), f"{path}/{name}")


def _typed(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Yield what of a value is not what its type says."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fitting = [choice for choice in choices if (choice is type(None)) is (value is None)]
        yield from min((list(_typed(value, choice, path)) for choice in fitting or choices), key=len)
    elif origin is list and isinstance(value, list):
        for place, each in enumerate(value):
            yield from _typed(each, choices[0], f"{path}[{place}]")
    elif origin is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from _typed(each, choices[1], f"{path}/{key}")
    elif hasattr(value, "to_json"):
        yield from _inside(value, path)
    elif isinstance(value, dict) and hasattr(hint, "from_json"):
        yield from _inside(hint.from_json(value), path)
    elif not _is(value, hint, origin, choices):
        yield f"{path}: {value!r} is no {hint}"


def _is(value: Any, hint: Any, origin: Any, choices: tuple[Any, ...]) -> bool:
    if hint in (Any, object) or isinstance(hint, typing.TypeVar):
        return True
    if origin is typing.Literal:
        return value in choices
    if not isinstance(hint, type):
        return False
    if issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if isinstance(value, bool) and hint is not bool:
        return False
    return isinstance(value, (int, float) if hint is float else hint)
