# SPDX-License-Identifier: Apache-2.0
"""Ansible's results as lines of JSON: a callback plugin, for the oldest ansible-core and the newest alike."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: stdout
short_description: tells each result as a line of JSON
description: tells each result as a line of JSON
"""


class CallbackModule(CallbackBase):  # type: ignore[misc] # Ansible has no types
    """Tells how each task ended on each host, and the counts at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def _tell(self, result: Any, ended: str) -> None:
        line = {"task": result._task.get_name(), "host": result._host.get_name(), "ended": ended}
        print(json.dumps({**line, "result": result._result}, default=str), flush=True)

    def v2_runner_on_ok(self, result: Any) -> None:
        """See CallbackBase."""
        self._tell(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """See CallbackBase."""
        self._tell(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """See CallbackBase."""
        self._tell(result, "unreachable")

    def v2_runner_on_skipped(self, result: Any) -> None:
        """See CallbackBase."""
        self._tell(result, "skipped")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """See CallbackBase."""
        counts = {host: stats.summarize(host) for host in stats.processed}
        print(json.dumps({"stats": counts}), flush=True)
