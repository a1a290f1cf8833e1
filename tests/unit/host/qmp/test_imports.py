# SPDX-License-Identifier: Apache-2.0
"""What comes with qemu.qmp into a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_LOADED = "print(*(name for name in ('_ssl', 'qemu.qmp') if name in sys.modules))"
_IMPORT = f"""\
import sys
from vcpu_proto.lean import without
with without("ssl"):
    import asyncio
import vcpu_host.qmp.monitor
{_LOADED}
"""
#: A qemu.qmp that makes a context of its own.
_OTHER = {
    "__init__.py": "from .protocol import *\n",
    "protocol.py": "from ssl import SSLContext, create_default_context\n"
    + "".join(
        f"class {name}(Exception): pass\n"
        for name in (
            *("ConnectError", "EventListener", "ExecInterruptedError", "ExecuteError", "QMPClient", "Runstate"),
            "StateError",
        )
    ),
    "message.py": "class Message(dict): pass\n",
    "qmp_client.py": "class BadReplyError(Exception): pass\nGreetingError = NegotiationError = BadReplyError\n"
    "ServerParseError = BadReplyError\n",
}


def _loaded(*path: Path) -> str:
    script = "".join(f"import sys; sys.path.insert(0, {str(each)!r})\n" for each in path) + _IMPORT
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or done.stderr


def test_openssl_does_not_come_with_it() -> None:
    assert _loaded() == "qemu.qmp"


def test_a_version_that_needs_openssl_has_it(tmp_path: Path) -> None:
    package = tmp_path / "qemu/qmp"
    package.mkdir(parents=True)
    for name, text in _OTHER.items():
        (package / name).write_text(text, encoding="utf-8")
    assert _loaded(tmp_path) == "_ssl qemu.qmp"
