# SPDX-License-Identifier: Apache-2.0
"""Logs to stderr: lines that journald understands, or JSON.

structlog is imported when the first line is logged, so that it does not delay the start. If stderr is the journal, a
line begins with the syslog priority in angle brackets, which journald makes the entry's priority (sd-daemon(3)).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

from vcpu_proto.lean import without

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

LEVELS: Mapping[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
#: Of a line that becomes due again and again: which of the times are logged, and after how many seconds of silence the
#: count begins anew.
_SAID = frozenset({1, 10, 100, 1_000, 10_000})
_QUIET = 3600.0

_level: Level = "info"
_format: Format = "text"
_logger: Any = None


def configure(level: Level, form: Format) -> None:
    """Choose what is logged and in which form. The entry of the process calls it once, at any time."""
    global _level, _format, _logger
    _level, _format, _logger = level, form, None


def debug(event: str, **fields: object) -> None:
    """Log what helps to find a fault."""
    if _level == "debug":
        _say("debug", event, fields)


def info(event: str, **fields: object) -> None:
    """Log what an operator wants to have on record."""
    if LEVELS[_level] <= LEVELS["info"]:
        _say("info", event, fields)


def warning(event: str, **fields: object) -> None:
    """Log that something is not as it should be; the agent goes on."""
    _say("warning", event, fields)


def error(event: str, **fields: object) -> None:
    """Log that the agent cannot do its work."""
    _say("error", event, fields)


class Seldom:
    """A line that may become due again and again: it is logged the first time, the tenth, the hundredth and so on.

    It is logged five times at most. After an hour in which it was not due, the count begins anew.
    """

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._times = 0
        self._last = 0.0

    def warning(self, **fields: object) -> None:
        """Log it as a warning, if it is its turn; `fields` are those of this time."""
        self._due(warning, fields)

    def error(self, **fields: object) -> None:
        """Log it as an error, if it is its turn."""
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
    except (OSError, ValueError):  # stderr is closed, or nobody reads it: nobody can be told, and the work goes on
        return


def _get() -> Any:
    global _logger
    if _logger is None:
        # For coloured tracebacks, which are not written here, it would take the modules that draw them.
        with without("rich", "better_exceptions", "colorama"):
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
    """Return one line: the priority if journald reads it, the event, then key=value with unprintable text escaped."""
    level = fields.pop("level", "info")
    event = fields.pop("event", "")
    rest = "".join(f" {key}={_quoted(value)}" for key, value in fields.items())
    prefix = f"<{_PRIORITIES.get(level, 6)}>" if "JOURNAL_STREAM" in os.environ else f"{level}: "
    return f"{prefix}{event}{rest}"


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text and text.isprintable() and not set(text) & {" ", '"', "="} else repr(text)
