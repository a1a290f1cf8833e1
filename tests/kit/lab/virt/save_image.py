# SPDX-License-Identifier: Apache-2.0
"""libvirt's file of a saved domain: who the domain is, before what QEMU saved of it.

The form is ``virQEMUSaveHeader``'s (src/qemu/qemu_saveimage.h): a magic and numbers of four bytes in the machine's
order, then the domain's XML and libvirt's cookie, each with a NUL, and NULs to the length that the header says. libvirt
lets nobody change a domain's name or UUID there (``virsh save-image-define``), which QEMU's part does not contain.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from kit.lab.errors import LabError

_MAGIC = b"LibvirtQemudSave"
#: version, length of XML and cookie with their padding, whether it ran, compression, offset of the cookie.
_NUMBERS = struct.Struct("=5I")
_HEADER = len(_MAGIC) + _NUMBERS.size + 14 * 4


def rewrite(source: Path, target: Path, change: Callable[[str], str]) -> None:
    """Copy a saved domain with its XML changed. Raises LabError if the form is not known, or the XML is too long."""
    with source.open("rb") as old, target.open("wb") as new:
        header = old.read(_HEADER)
        if not header.startswith(_MAGIC):
            raise LabError(f"{source} is no domain that libvirt saved")
        version, length, running, compressed, cookie_at = _NUMBERS.unpack_from(header, len(_MAGIC))
        data = old.read(length)
        text, _, _ = data.partition(b"\0")
        cookie = data[cookie_at:].partition(b"\0")[0] + b"\0" if cookie_at else b""
        changed = change(text.decode()).encode() + b"\0"
        if len(changed) + len(cookie) > length:
            raise LabError(f"no room in {source} for an XML of {len(changed)} bytes")
        numbers = _NUMBERS.pack(version, length, running, compressed, len(changed) if cookie else 0)
        new.write(_MAGIC + numbers + header[len(_MAGIC) + _NUMBERS.size :])
        new.write((changed + cookie).ljust(length, b"\0"))
        shutil.copyfileobj(old, new, 1 << 20)
