# SPDX-License-Identifier: Apache-2.0
"""Logs to stderr: lines that journald understands, or JSON.

structlog is imported with the first line that is logged, so that it does not delay the start. A line begins with the
syslog priority in angle brackets, which journald turns into the entry's priority (sd-daemon(3)), when stderr is the
journal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

LEVELS: Mapping[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}

_level: Level = "info"
_format: Format = "text"
_logger: Any = None


def configure(level: Level, form: Format) -> None:
    """Choose what is logged and how; called once by the process's entry, before or after the first line."""
    global _level, _format, _logger
    _level, _format, _logger = level, form, None


def debug(event: str, **fields: object) -> None:
    """For who looks for a fault."""
    if _level == "debug":
        _get().debug(event, **fields)


def info(event: str, **fields: object) -> None:
    """What an operator wants to have on record."""
    if LEVELS[_level] <= LEVELS["info"]:
        _get().info(event, **fields)


def warning(event: str, **fields: object) -> None:
    """Something is not as it should be, and the agent goes on."""
    _get().warning(event, **fields)


def error(event: str, **fields: object) -> None:
    """The agent can't do what it is there for."""
    _get().error(event, **fields)


def _get() -> Any:
    global _logger
    if _logger is None:
        import structlog

        # The journal stamps each line itself.
        processors: list[Any] = [structlog.processors.add_log_level]
        if _format == "json":
            processors += [structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()]
        else:
            processors += [_render]
        structlog.configure(
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[_level]),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
        _logger = structlog.get_logger()
    return _logger


def _render(_logger: object, _name: str, fields: MutableMapping[str, Any]) -> str:
    """One line: priority if journald reads it, the event, then key=value with anything unprintable escaped."""
    level = fields.pop("level", "info")
    event = fields.pop("event", "")
    rest = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
    prefix = f"<{_PRIORITIES.get(level, 6)}>" if "JOURNAL_STREAM" in os.environ else f"{level}: "
    return f"{prefix}{event}{rest}"


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text and text.isprintable() and not set(text) & {" ", '"', "="} else repr(text)
