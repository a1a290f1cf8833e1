# SPDX-License-Identifier: Apache-2.0
"""For all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Hear Ctrl-C, also when a shell has started the tests in its background: it has such programs ignore SIGINT.

    What ignores a signal starts others that ignore it, and the tests send it to commands.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
