# SPDX-License-Identifier: Apache-2.0
"""The record of what is pending, in the domain's own metadata: it goes where the domain goes.

It is in the running domain alone (VIR_DOMAIN_AFFECT_LIVE), so it ends with the QEMU that it is about. It survives
restarts of libvirt's daemon, and a save or a migration takes it along (seen on 9.0 and 12.8).
"""

from __future__ import annotations

import json
import os
import socket
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import codes
from ..core.intent import Intent
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import QemuError, RefusedError, VcpuctlError
from . import binding, words
from .domain import Domain

#: The namespace of vcpuctl's element.
NAMESPACE = "https://vcpuctl.org/xmlns/record/1"
_PREFIX = "vcpuctl"
_SCHEMA_VERSION = 1
#: virDomainMetadataType: an element of our own; virDomainModificationImpact: the running domain.
_ELEMENT, _LIVE = 2, 1


#: What a record raises that nobody of us has written.
_BROKEN = (ET.ParseError, ValueError, KeyError, TypeError, RecursionError)


class MetadataJournal:
    """Fills ``ports.Journal`` for a domain. ``holder`` is what others are told of who writes, also on other hosts."""

    shared = True

    def __init__(self, domain: Domain, holder: str) -> None:
        self._holder = f"{holder} on {socket.gethostname()}, process {os.getpid()}"
        self._domain = domain
        self._connection = domain.connection

    async def load(self) -> tuple[Intent, ...]:
        """See ``ports.Journal``. Threads of another QEMU than today's say nothing here, and are left out."""
        try:
            found = await self._connection.call("read the domain's metadata", self._read)
        except VcpuctlError as error:
            raise RefusedError(error.reason) from error
        return () if found is None else self._parse(*found)

    def _read(self) -> tuple[str, Mapping[str, object]] | None:
        """Return the record, and which QEMU there is now. In the connection's thread."""
        libvirt = binding.module()
        try:
            xml = str(self._domain.raw.metadata(_ELEMENT, NAMESPACE, _LIVE))
        except libvirt.libvirtError as error:
            if words.number(error) == words.NO_DOMAIN_METADATA:
                return None
            raise
        return xml, self._qemu()

    def _qemu(self) -> Mapping[str, object]:
        """Return which QEMU has the domain's vCPUs, and so the threads of the record. In the connection's thread.

        A domain has another id after each start, a restore from a save among them. An object that was found earlier has
        the id of that time.
        """
        identity = self._domain.identity
        return {"host": identity.host, "domain_id": self._connection.raw.lookupByUUIDString(identity.uuid).ID()}

    def _parse(self, xml: str, qemu: Mapping[str, object]) -> tuple[Intent, ...]:
        try:
            document = _document(xml)
            if document["schema_version"] != _SCHEMA_VERSION:
                raise ValueError(f"it is of version {document['schema_version']!r:.40}")
            intents = tuple(Intent.from_json(entry) for entry in document["intents"])
            same = all(document.get(key) == value for key, value in qemu.items())
        except _BROKEN as error:
            text = f"the domain's metadata ({NAMESPACE}) should say what is still pending, and cannot be read: {error}"
            hint = f"compare the VM with its guest by hand, then: virsh metadata DOMAIN {NAMESPACE} --live --remove"
            raise RefusedError(Reason(codes.BAD_RECORD, Origin.VCPUCTL, text, hint)) from error
        return intents if same else tuple(intent._replace(threads=()) for intent in intents)

    async def holder(self) -> str:
        """Return who else wrote the record that there is; empty if nobody did, or it does not say."""
        try:
            record = await self._connection.call("read the domain's metadata", self._read)
            found = "" if record is None else str(_document(record[0])["holder"])
        except (VcpuctlError, *_BROKEN):
            return ""
        return "" if found == self._holder else printable(found, 300)

    async def save(self, intents: Sequence[Intent]) -> None:
        """See ``ports.Journal``."""
        try:
            await self._connection.call("write the domain's metadata", self._write, intents)
        except QemuError as error:
            text = f"cannot record what is about to be done in the domain's metadata: {error.reason.text}"
            raise RefusedError(Reason(codes.NO_RECORD, Origin.LIBVIRT, text, error.reason.hint)) from error
        except VcpuctlError as error:
            raise RefusedError(error.reason) from error

    def _write(self, intents: Sequence[Intent]) -> None:
        """Write the record, or remove it if there are no intents. In the connection's thread."""
        xml = self._xml(intents) if intents else None
        self._domain.raw.setMetadata(_ELEMENT, xml, _PREFIX if xml else None, NAMESPACE, _LIVE)

    def _xml(self, intents: Sequence[Intent]) -> str:
        element = ET.Element("record")
        element.text = json.dumps(
            {
                "schema_version": _SCHEMA_VERSION,
                **self._qemu(),
                "holder": self._holder,
                "intents": [intent.to_json() for intent in intents],
            }
        )
        return ET.tostring(element, encoding="unicode")


def _document(xml: str) -> Any:
    return json.loads(ET.fromstring(xml).text or "")  # noqa: S314 - libvirt has parsed it before
