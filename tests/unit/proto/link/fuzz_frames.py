# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of the frame decoder and both ends of a session.

``cd tests/unit/proto/link && python -m fuzz_frames -runs=1000000``: options and arguments are libFuzzer's. The first
byte of an input picks how the rest is cut into reads; the rest is fed to a decoder, a host and a guest. Any exception
is a finding.
"""

from __future__ import annotations

import hashlib
import sys
import zlib

import atheris

with atheris.instrument_imports(include=["vcpu_proto.link.frames", "vcpu_proto.link.session"]):
    from vcpu_proto.link.events import Opened
    from vcpu_proto.link.frames import MAX_ENCODED, NO_TOKEN, Decoder, Frame, Kind, encode
    from vcpu_proto.link.session import Role, Session, State

TOKEN = b"\x01" * 8
#: The most that replies may take: one of each kind, each byte escaped.
MOST_OWED = 5 * 2 * (17 + 256) + 10


def mend(data: bytes) -> bytes:
    """Gives every stretch between flags the checksum that it lacks, or no fuzzer would ever get past the CRC."""
    stretches = data.split(b"\x7e")
    for at, stretch in enumerate(stretches):
        body = stretch.replace(b"\x7d\x5e", b"\x7e").replace(b"\x7d\x5d", b"\x7d")
        body += zlib.crc32(body).to_bytes(4, "big")
        stretches[at] = body.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e")
    return b"\x7e".join(stretches) + b"\x7e"


def reads(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def check_decoder(data: bytes, step: int) -> None:
    whole = Decoder().feed(data)
    decoder = Decoder()
    in_pieces: list[Frame] = []
    for piece in reads(data, step):
        in_pieces += decoder.feed(piece)
        assert decoder.held <= MAX_ENCODED
    assert in_pieces == whole
    for frame in whole:
        assert encode(frame).strip(b"\x7e") in data
    assert decoder.feed(encode(Frame(Kind.PING, NO_TOKEN)))[-1] == Frame(Kind.PING, NO_TOKEN)


def check_sessions(data: bytes, step: int) -> None:
    host = Session(Role.HOST)
    host.open(TOKEN)
    guest = Session(Role.GUEST, instance=TOKEN)
    guest.receive(encode(Frame(Kind.OPEN, TOKEN)))
    for end in (host, guest):
        for piece in reads(data, step):
            end.receive(piece)
            assert (end.state is State.IDLE) == (end.token == NO_TOKEN)
        assert len(end.replies()) <= MOST_OWED
    # Whatever came, the next session opens; its token is one that the input cannot hold but by chance.
    fresh = hashlib.sha256(data).digest()[:8]
    assert Opened(fresh) in guest.receive(encode(Frame(Kind.OPEN, fresh)))


def check(data: bytes) -> None:
    if not data:
        return
    step = 1 + data[0] % 64
    for stream in (data[1:], mend(data[1:])):
        check_decoder(stream, step)
        check_sessions(stream, step)


def main() -> None:
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
