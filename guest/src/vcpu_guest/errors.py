# SPDX-License-Identifier: Apache-2.0
"""The errors that end the agent.

AgentError
 +- ConfigError    the configuration file is wrong (exit 2)
 +- StartError     something that the agent needs is missing or taken (exit 1; systemd starts it again)
 +- InstallError   its service cannot be installed or removed (exit 1)
"""

from __future__ import annotations


class AgentError(Exception):
    """Root of all errors that the agent reports as one line; `exit_code` is the process's."""

    exit_code = 1


class ConfigError(AgentError):
    """The configuration cannot be understood."""

    exit_code = 2


class StartError(AgentError):
    """The agent cannot do its work now."""


class InstallError(AgentError):
    """The service cannot be installed or removed."""
