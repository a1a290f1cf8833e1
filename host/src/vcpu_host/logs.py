# SPDX-License-Identifier: Apache-2.0
"""Logging: structlog on stderr, set up once by the entry point, imported only when something will be logged."""

from __future__ import annotations

import logging
import sys
from typing import Any, Protocol


class Log(Protocol):
    """The part of structlog's bound logger that is used here."""

    def debug(self, event: str, **values: Any) -> Any:
        """Log what is for following every step."""

    def info(self, event: str, **values: Any) -> Any:
        """Log what is for following what happens."""


class _Silent:
    """No log was asked for, so structlog (0.1 s to import) is not loaded."""

    def debug(self, event: str, **values: Any) -> None:
        del event, values

    def info(self, event: str, **values: Any) -> None:
        del event, values


def open_log(verbosity: int, form: str) -> Log:
    """Return a log at the level that ``-v`` asked for: none, info, or debug with ``-vv``.

    ``form`` is "text" or "json".
    """
    if verbosity < 1:
        return _Silent()
    import structlog

    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbosity == 1 else logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger()
    return log
