# SPDX-License-Identifier: Apache-2.0
"""libvirt's Python module, loaded when it is needed, and the thread in which it tells of events.

The module is Debian's python3-libvirt or PyPI's libvirt-python (9.0 or newer). Nothing but this module imports it.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import RefusedError

#: virDomainSetVcpu: have the removal begin, and return (libvirt 12.4, include/libvirt/libvirt-domain.h). A client that
#: is older passes the number on all the same.
ASYNC_UNPLUG = 4
#: The first version of the daemon that knows it, as virConnectGetLibVersion counts.
ASYNC_UNPLUG_SINCE = 12_004_000


#: Connections are opened by threads of their own, and the first ones at the same time.
_LOADING = threading.Lock()


def module() -> Any:
    """Return the module ``libvirt``, with its event loop running. Raise RefusedError "no-libvirt" if there is none.

    The loop has to be there before the first connection: one that was opened earlier has neither events nor keepalive.
    It may run in one thread alone: of two, each could be handed a part of what a stream has.
    """
    with _LOADING:
        return _loaded()


@cache
def _loaded() -> Any:
    try:
        import libvirt
    except ImportError as error:
        text = f"libvirt's Python module cannot be loaded: {error}"
        hint = "install python3-libvirt (Debian), or pip install vcpu-host[libvirt]"
        raise RefusedError(Reason(codes.NO_LIBVIRT, Origin.VCPUCTL, text, hint)) from error
    # Else the library itself prints each error to stderr, besides raising it.
    libvirt.registerErrorHandler(lambda context, error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run, args=(libvirt,), name="libvirt events", daemon=True).start()
    return libvirt


@cache
def monitor_module() -> Any:
    """Return the module ``libvirt_qemu``, which sends commands to QEMU's monitor and hears its events."""
    module()
    import libvirt_qemu

    return libvirt_qemu


def _run(libvirt: Any) -> None:
    """Run the event loop for as long as the process lives. An error of one turn is no error of the next one."""
    while True:
        if libvirt.virEventRunDefaultImpl() < 0:
            raise RuntimeError("libvirt's event loop has failed")
