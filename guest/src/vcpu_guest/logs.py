# SPDX-License-Identifier: Apache-2.0
"""Logs to stderr: lines that journald understands, or JSON.

structlog is imported with the first line that is logged, so that it does not delay the start. A line begins with the
syslog priority in angle brackets, which journald turns into the entry's priority (sd-daemon(3)), when stderr is the
journal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

LEVELS: Mapping[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
#: Of what comes about again and again: which times are said, and how many seconds without make it new.
_SAID = frozenset({1, 10, 100, 1_000, 10_000})
_QUIET = 3600.0

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
        _say("debug", event, fields)


def info(event: str, **fields: object) -> None:
    """What an operator wants to have on record."""
    if LEVELS[_level] <= LEVELS["info"]:
        _say("info", event, fields)


def warning(event: str, **fields: object) -> None:
    """Something is not as it should be, and the agent goes on."""
    _say("warning", event, fields)


def error(event: str, **fields: object) -> None:
    """The agent can't do what it is there for."""
    _say("error", event, fields)


class Seldom:
    """A line that may become due again and again: said the first time, the tenth, the hundredth and so on.

    Five times at most, and from the first time on again after an hour without.
    """

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._times = 0
        self._last = 0.0

    def warning(self, **fields: object) -> None:
        """It is due; `fields` are those of this time."""
        self._due(warning, fields)

    def error(self, **fields: object) -> None:
        """It is due, and an error."""
        self._due(error, fields)

    def _due(self, say: Callable[..., None], fields: Mapping[str, object]) -> None:
        now = self._clock()
        if now - self._last >= _QUIET:
            self._times = 0
        self._last = now
        self._times += 1
        if self._times in _SAID:
            say(self._event, **fields, **({"times": self._times} if self._times > 1 else {}))


def _say(level: Level, event: str, fields: Mapping[str, object]) -> None:
    try:
        getattr(_get(), level)(event, **fields)
    except (OSError, ValueError):  # nobody reads it, or it is closed: there is no one to tell, and the work goes on
        return


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
