# SPDX-License-Identifier: Apache-2.0
"""What is pending, in a domain's metadata: found again, and told to others by who wrote it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.fakes.libvirt_stream import FakeModule, LibvirtError
from vcpu_host.core.identity import DomainId
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.libvirt import binding, words
from vcpu_host.libvirt.journal import MetadataJournal

INTENT = Intent(IntentKind.PLUG, 5, "vcpu5", since=0.0)


class NoMetadataError(LibvirtError):
    """As of a domain without any."""

    def get_error_code(self) -> int:
        return words.NO_DOMAIN_METADATA


class Raw:
    """A virDomain's metadata, and the connection that finds the domain: ``number`` is its id, another at each start."""

    def __init__(self) -> None:
        self.xml: str | None = None
        self.number = 7

    def lookupByUUIDString(self, uuid: str) -> Raw:  # noqa: N802 - libvirt's
        assert uuid == "uuid"
        return self

    def ID(self) -> int:  # noqa: N802 - libvirt's
        return self.number

    def metadata(self, *_words: object) -> str:
        if self.xml is None:
            raise NoMetadataError("no metadata")
        return self.xml

    def setMetadata(self, kind: int, xml: str | None, *_words: object) -> None:  # noqa: N802 - libvirt's
        assert kind
        self.xml = xml


async def _call(what: str, function: Any, *arguments: object) -> object:
    assert what
    return function(*arguments)


def journal(raw: Raw, holder: str, host: str = "host") -> MetadataJournal:
    domain = SimpleNamespace(connection=SimpleNamespace(call=_call, raw=raw), raw=raw, identity=DomainId("uuid", host))
    return MetadataJournal(cast("Any", domain), holder)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "module", FakeModule)


async def test_others_are_told_who_wrote_the_record_and_its_writer_is_not() -> None:
    raw = Raw()
    mine, other = journal(raw, "vcpuctl plug"), journal(raw, "vcpuctl list", "another host")
    assert (await mine.load(), await other.holder()) == ((), "")
    await mine.save([INTENT])
    assert await mine.load() == await other.load() == (INTENT,)
    assert (await other.holder()).startswith("vcpuctl plug on ")
    assert await mine.holder() == ""
    await mine.save([])
    assert (raw.xml, await other.holder()) == (None, "")


async def test_threads_count_for_the_qemu_that_had_them_and_for_none_after_it() -> None:
    raw = Raw()
    removal = Intent(IntentKind.UNPLUG, 5, "vcpu5", since=0.0, threads=(4242,))
    without = removal._replace(threads=())
    await journal(raw, "vcpuctl unplug").save([removal])
    assert await journal(raw, "vcpuctl list").load() == (removal,)
    assert await journal(raw, "vcpuctl list", "another host").load() == (without,)
    raw.number = 8  # saved and restored on the same host
    assert await journal(raw, "vcpuctl list").load() == (without,)
    raw.number = 7
    assert raw.xml is not None
    raw.xml = raw.xml.replace('"domain_id": 7, ', "")  # as an earlier version wrote it
    assert await journal(raw, "vcpuctl list").load() == (without,)
