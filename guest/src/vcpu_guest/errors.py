# SPDX-License-Identifier: Apache-2.0
"""What can end the agent, in words.

AgentError
 +- ConfigError    the configuration file is wrong (exit 2)
 +- StartError     something that it needs is not there or not ours (exit 1; systemd starts it again)
"""

from __future__ import annotations


class AgentError(Exception):
    """Root of all errors that the agent reports as one line; `exit_code` is the process's."""

    exit_code = 1


class ConfigError(AgentError):
    """The configuration cannot be understood."""

    exit_code = 2


class StartError(AgentError):
    """The agent cannot do its work here and now."""
