# SPDX-License-Identifier: Apache-2.0
"""Domains joined with the files of vms.d: what is configured, what is lacking, and the file that adds the rest."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core import codes
from vcpu_host.core.domains import AgentChannel, Definition, ListedDomain, join
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.vms import Configured

_URI = "qemu+ssh://root@h/system?no_tty=1"
_WHY = Reason(codes.LIBVIRT_ERROR, Origin.LIBVIRT, "stuck")
_LACKS, _HAS = Definition(channel=False, reason=_WHY), Definition(channel=True, added=True)


def _domain(name: str = "web1", *, channel: bool | None = True, trouble: Reason | None = None) -> ListedDomain:
    return ListedDomain(name, "u-1", "running", True, 1, 4, channel=channel, trouble=trouble)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (Configured("x", "/d/x.toml", libvirt=_URI, domain="web1"), ("x",)),
        (Configured("x", "/d/x.toml", libvirt=_URI, domain="u-1"), ("x",)),
        (Configured("x", "/d/x.toml", libvirt="qemu:///system", domain="web1"), ()),
        (Configured("x", "/d/x.toml", libvirt=_URI, domain="web2"), ()),
        (Configured("x", "/d/x.toml", libvirt=_URI, domain="web1", hidden_by="/u/x.toml"), ()),
        (Configured("web1", "/d/web1.toml", "/q", key="1"), ()),
    ],
)
def test_a_file_stands_for_the_domain_that_it_names_by_this_uri(file: Configured, names: tuple[str, ...]) -> None:
    (found,) = join(_URI, [_domain()], [file], "/d").found
    assert found.configured == names
    assert (found.offer is None) is bool(names)


def test_a_name_that_is_taken_is_offered_to_nobody_else() -> None:
    taken = [Configured("web1", "/d/web1.toml", "/q", key="1")]
    found = join(_URI, [_domain("web 1"), _domain("web1"), _domain("web-1")], taken, "/d").found
    names = [each.offer.name for each in found if each.offer is not None]
    assert names == ["web-1", "web-1-2", "web1-2"]


def test_a_domain_without_the_channel_is_told_the_command_that_adds_it() -> None:
    (found,) = join(_URI, [_domain("a b", channel=False)], [], "/d").found
    (reason,) = found.lacks
    assert reason.code == "no-channel"
    words = ["vcpuctl", "channel", "--connect", _URI, "--domain", "a b", "--apply", "adds", "it"]
    assert shlex.split(reason.hint) == words


def test_a_name_that_is_no_word_of_a_command_is_replaced_by_the_uuid() -> None:
    (found,) = join(_URI, [_domain("-x", channel=False)], [], "/d").found
    assert "--domain u-1 " in found.lacks[0].hint


def test_of_a_domain_that_cannot_be_read_nothing_but_that_is_told() -> None:
    (found,) = join(_URI, [_domain(channel=None, trouble=_WHY)], [], "/d").found
    assert found.lacks == (_WHY,)
    assert found.offer is not None


@given(st.text(min_size=1).filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_an_offer_is_one_printable_command_and_says_the_domain_exactly(name: str) -> None:
    (found,) = join(_URI, [_domain(name)], [], "/d d").found
    assert found.offer is not None
    assert tomllib.loads(found.offer.text) == {"libvirt": _URI, "domain": name}
    assert found.offer.command.isprintable()
    _, written = found.offer.command.split(" && ", 1)
    assert shlex.split(written) == ["printf", "%s\\n", *found.offer.text.split("\n"), f">{found.offer.file}"]


@pytest.mark.parametrize(
    ("running", "persistent", "outcome"),
    [
        (_HAS, _HAS, Outcome.DONE),
        (None, Definition(channel=False), Outcome.DONE),
        (_LACKS, _HAS, Outcome.PARTIAL),
        (_LACKS, Definition(channel=True), Outcome.PARTIAL),  # the same once more
        (Definition(channel=True), _LACKS, Outcome.PARTIAL),
        (_LACKS, None, Outcome.REFUSED),
        (_LACKS, _LACKS, Outcome.REFUSED),
    ],
)
def test_how_adding_ended_is_told_by_what_was_refused_and_a_repeat_tells_the_same(
    running: Definition | None, persistent: Definition | None, outcome: Outcome
) -> None:
    assert AgentChannel("<x/>", _URI, "d", "u", running, persistent).outcome is outcome
