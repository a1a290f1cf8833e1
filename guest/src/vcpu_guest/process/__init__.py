# SPDX-License-Identifier: Apache-2.0
"""The agent as a process: what it tells systemd, and what it does about exceptions that nobody expected."""
