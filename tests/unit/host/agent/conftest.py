# SPDX-License-Identifier: Apache-2.0
"""A port, and a guest with an echo server behind its link."""

from __future__ import annotations

from kit.fakes.link_ends import echo_server, guest, port

__all__ = ["echo_server", "guest", "port"]
