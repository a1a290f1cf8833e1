# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line is read as QEMU reads it. Each form has its source in QEMU, by file and function."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.qemu_argv import Chardev, program, read, settings


def _unix(path: str, *, abstract: bool = False, fd: int | None = None, listens: bool = True) -> Chardev:
    return Chardev("socket", path, abstract, fd, listens)


# (system/vl.c, monitor_parse; chardev/char.c, qemu_chr_parse_compat; monitor/monitor.c, monitor_init_opts;
# chardev/char-socket.c, qemu_chr_parse_socket)
MONITORS = [
    # monitor_parse makes a chardev of the text, qemu_chr_parse_compat takes "unix:" and the settings behind it.
    ("-qmp unix:/run/q,server=on,wait=off", _unix("/run/q")),
    ("--qmp unix:/run/q,server=on", _unix("/run/q")),  # lookup_opt: two dashes are as good as one
    ("-qmp-pretty unix:/run/q,server=on", _unix("/run/q")),
    ("-qmp unix:/run/q,server,nowait", _unix("/run/q")),  # get_opt_name_value: a flag is on, "no" makes it off
    ("-qmp unix:/run/q,wait=off,server=yes", _unix("/run/q")),  # qapi_bool_parse: on, yes, true, y
    ("-qmp unix:path=/run/q,server=on", _unix("/run/q")),  # the implied name may be said
    ("-qmp unix:/run/a,,b=c,server=on", _unix("/run/a,b=c")),  # get_opt_value: a comma is doubled
    ("-qmp unix:/run/a,,,,b,server=on", _unix("/run/a,,b")),
    ("-qmp unix:/run/q,server=on,server=off", _unix("/run/q", listens=False)),  # qemu_opt_find: the last one counts
    ("-qmp unix:name,abstract=on,server=on", _unix("name", abstract=True)),
    ("-qmp unix:name,abstract,tight=off,server=on", _unix("name", abstract=True)),
    ("-qmp unix:/run/q", _unix("/run/q", listens=False)),  # qemu_chr_parse_socket: server is off if it is not said
    ("-qmp unix:/run/q,noserver", _unix("/run/q", listens=False)),
    ("-qmp mon:unix:/run/q,server=on", _unix("/run/q")),  # permit_mux_mon
    ("-qmp tcp:localhost:4444,server=on,wait=off", Chardev("tcp")),
    ("-qmp stdio", Chardev("stdio")),
    ("-qmp chardev:c -chardev socket,id=c,path=/run/q,server=on", _unix("/run/q")),  # monitor_parse, "chardev:"
    # -mon, before or behind its chardev; the chardev's id is the implied setting (monitor/monitor.c, qemu_mon_opts).
    ("-chardev socket,id=c,path=/run/q,server=on,wait=off -mon chardev=c,mode=control", _unix("/run/q")),
    ("-mon c,mode=control,pretty=on -chardev socket,id=c,path=/run/q,server=on", _unix("/run/q")),
    ("-chardev backend=socket,path=/run/q,server=on,id=c -mon id=m,mode=control,chardev=c", _unix("/run/q")),
    ("-chardev socket,id=c,path=/run/q,,2,server=on -mon c,mode=control", _unix("/run/q,2")),
    ("-chardev socket,id=c,fd=7,server=on,wait=off -mon c,mode=control", _unix("", fd=7)),
    ("-chardev socket,id=c,fd=mine,server=on -mon c,mode=control", _unix("")),
    ("-chardev socket,id=c,host=::1,port=1,server=on -mon c,mode=control", _unix("")),
    ("-chardev pty,id=c -mon c,mode=control", Chardev("pty")),
    ("-mon nowhere,mode=control", Chardev()),
]


@pytest.mark.parametrize(("line", "monitor"), MONITORS)
def test_a_qmp_monitor_is_found_in_all_forms_that_qemu_takes(line: str, monitor: Chardev) -> None:
    assert read(["qemu-system-x86_64", *shlex.split(line)]).monitors == (monitor,)


@pytest.mark.parametrize(
    "line",
    [
        "-monitor unix:/run/q,server=on",
        "-serial mon:unix:/run/q,server=on",
        "-chardev socket,id=c,path=/run/q,server=on",
        "-chardev socket,id=c,path=/run/q,server=on -mon chardev=c",  # monitor_init_opts: mode is readline then
        "-chardev socket,id=c,path=/run/q,server=on -mon chardev=c,mode=readline",
        # Words that are the argument of another option are no options (system/vl.c, lookup_opt: HAS_ARG).
        "-append -qmp -m unix:/run/q,server=on",
        "-kernel -qmp -initrd unix:/run/q,server=on",
        "-qmp",
        "",
    ],
)
def test_what_is_no_qmp_monitor_is_not_taken_for_one(line: str) -> None:
    assert [monitor for monitor in read(["qemu", *shlex.split(line)]).monitors if monitor.reachable] == []


@pytest.mark.parametrize(
    "flags", ["-S", "-nodefaults -nographic", "-enable-kvm --preconfig", "disk.img -snapshot -no-reboot"]
)
def test_an_option_without_an_argument_takes_no_word_away(flags: str) -> None:
    says = read(["qemu", *flags.split(), "-qmp", "unix:/q,server=on"])
    assert says.monitors == (_unix("/q"),)


def test_every_monitor_is_found_in_its_order() -> None:
    line = "-qmp unix:/a,server=on -mon c,mode=control -chardev socket,id=c,path=/b,server=on -qmp unix:/c,server=on"
    assert [monitor.path for monitor in read(["qemu", *line.split()]).monitors] == ["/a", "/b", "/c"]


_CHARDEV = "-chardev socket,id=c,path=/run/a,server=on,wait=off "


@pytest.mark.parametrize(
    "line",
    [
        # (system/vl.c, QEMU_OPTION_device; system/qdev-monitor.c, qemu_device_opts: "driver" is the implied setting)
        _CHARDEV + "-device virtserialport,chardev=c,name=org.vcpuctl.agent.0",
        _CHARDEV + "-device virtserialport,name=org.vcpuctl.agent.0,id=p,nr=3,chardev=c",
        _CHARDEV + "-device driver=virtserialport,chardev=c,name=org.vcpuctl.agent.0",
        "-device virtserialport,chardev=c,name=org.vcpuctl.agent.0 " + _CHARDEV,
        # What begins with a brace is JSON, as libvirt writes it.
        _CHARDEV
        + """-device '{"driver":"virtserialport","nr":1,"chardev":"c","id":"p","name":"org.vcpuctl.agent.0"}'""",
    ],
)
def test_the_agents_port_is_found_in_all_forms_that_qemu_takes(line: str) -> None:
    assert read(["qemu", *shlex.split(line)]).port == _unix("/run/a")


@pytest.mark.parametrize(
    "line",
    [
        _CHARDEV + "-device virtserialport,chardev=c,name=org.qemu.guest_agent.0",
        _CHARDEV + "-device virtconsole,chardev=c,name=org.vcpuctl.agent.0",
        _CHARDEV + """-device '{"driver":"virtserialport","chardev":"c","name":["org.vcpuctl.agent.0"]}'""",
        _CHARDEV,
    ],
)
def test_another_port_is_not_the_agents(line: str) -> None:
    assert read(["qemu", *shlex.split(line)]).port is None


@pytest.mark.parametrize("device", ["{", "{'driver':", '{"driver": ' + "[" * 20000])
def test_a_device_that_cannot_be_read_is_told_as_such(device: str) -> None:
    (told,) = read(["qemu", "-device", device]).unread
    assert told.startswith("-device {")
    assert len(told) < 100


def test_a_port_without_a_chardev_has_none_that_listens() -> None:
    port = read(["qemu", "-device", "virtserialport,chardev=x,name=org.vcpuctl.agent.0"]).port
    assert port == Chardev()
    assert not port.reachable


@pytest.mark.parametrize(
    ("line", "name"),
    [
        # (system/vl.c, qemu_name_opts: "guest" is the implied setting, and merge_lists)
        ("-name web1", "web1"),
        ("-name guest=web1,debug-threads=on", "web1"),
        ("-name web1,process=qemu-web1", "web1"),
        ("-name guest=a,,b", "a,b"),
        ("-name a -name debug-threads=on", "a"),
        ("-name a -name b", "b"),
        ("-name 'two words'", "two words"),
        ("-name debug-threads=on", ""),
        ("", ""),
    ],
)
def test_the_guests_name_is_found(line: str, name: str) -> None:
    assert read(["qemu", *shlex.split(line)]).name == name


_HANDED = "-chardev socket,id=charmonitor,fd=36,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control"
_SECRET = ',"format":"raw","file":"/var/lib/libvirt/qemu/domain-1-a/master-key.aes"}'


@pytest.mark.parametrize(
    "line",
    [
        # As libvirt starts QEMU today, with -object in JSON (QEMU 6.0 and newer) and without; and long ago.
        f"""-name guest=a -S -object '{{"qom-type":"secret","id":"masterKey0"{_SECRET}' {_HANDED}""",
        f"-object secret,id=masterKey0,format=raw,file=/var/lib/libvirt/qemu/domain-1-a/master-key.aes {_HANDED}",
        "-chardev socket,id=charmonitor,path=/var/lib/libvirt/qemu/a,server,nowait -mon charmonitor,mode=control",
    ],
)
def test_a_qemu_of_libvirts_is_known_by_the_names_that_libvirt_gives(line: str) -> None:
    assert read(["qemu", *shlex.split(line)]).libvirt


@pytest.mark.parametrize(
    "line",
    [
        # systemd-vmspawn and others have taken the name of libvirt's monitor over.
        _HANDED,
        "-chardev socket,id=charmonitor,path=/run/a/monitor.sock,server=on -mon charmonitor,mode=control",
        "-object secret,id=masterKey0,file=/x -qmp unix:/q,server=on",
        f"-object '{{' {_HANDED}",
    ],
)
def test_a_qemu_that_has_only_one_of_libvirts_names_is_not_its(line: str) -> None:
    says = read(["qemu", *shlex.split(line)])
    assert not says.libvirt
    assert len(says.monitors) == 1


def test_options_that_are_not_read_are_told() -> None:
    line = "-readconfig /etc/vm.cfg -set chardev.c.path=/x -readconfig \x1b[2J"
    assert read(["qemu", *line.split(" ")]).unread == (
        "-readconfig /etc/vm.cfg",
        "-set chardev.c.path=/x",
        "-readconfig \\x1b[2J",
    )


def test_words_without_end_make_a_value_of_bounded_size() -> None:
    argv = ["qemu", "-name", "\x1b" * 100_000, *["-qmp", "unix:/q,server=on"] * 1000, *["-set", "x" * 1000] * 1000]
    says = read(argv)
    assert len(says.name) <= 200
    assert says.name.isprintable()
    assert len(says.monitors) + len(says.unread) < 40
    assert all(len(told) < 100 for told in says.unread)


def test_a_path_that_no_socket_can_have_is_not_reachable() -> None:
    assert Chardev("socket", "/" + "x" * 106, listens=True).reachable
    assert not Chardev("socket", "/" + "x" * 107, listens=True).reachable
    assert not Chardev("socket", "", listens=True).reachable


def test_a_file_whose_name_begins_like_an_abstract_one_is_told_from_it() -> None:
    assert _unix("@x").bound == "./@x"
    assert _unix("x", abstract=True).bound == "@x"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "/lib64/ld-linux-x86-64.so.2 ",
        "/lib/ld-linux-aarch64.so.1 --library-path /opt/lib:/x --inhibit-cache --argv0 qemu ",
        "/lib64/ld64.so.2 ",
        "/lib/ld-musl-x86_64.so.1 --preload x ",
    ],
)
def test_a_program_that_the_dynamic_linker_starts_is_found_behind_it(before: str) -> None:
    line = f"{before}/opt/qemu-system-x86_64 -name a"
    assert list(program(line.split())) == ["/opt/qemu-system-x86_64", "-name", "a"]


@pytest.mark.parametrize("line", ["/opt/ld-qemu -name a", "/opt/old.so.qemu --argv0 a", "ld64 -name a"])
def test_what_is_no_dynamic_linker_is_the_program_itself(line: str) -> None:
    assert list(program(line.split())) == line.split()


@pytest.mark.parametrize("line", ["", "ld.so.1", "ld-linux.so.2 --library-path"])
def test_a_dynamic_linker_without_a_program_starts_none(line: str) -> None:
    assert list(program(line.split())) == []


@pytest.mark.parametrize(
    "words",
    [
        ["ld-" + "so" * 60_000 + "!"],
        ["qemu", "-chardev", "," * 130_000],
        ["qemu", "-device", "a," * 65_000],
        ["qemu", "-device", '{"a":' * 20_000],
        ["qemu", "-device", '{"a":' + "9" * 100_000 + "}"],
    ],
    ids=["linker", "commas", "flags", "braces", "digits"],
)
def test_the_longest_words_are_read_once(words: list[str]) -> None:
    """Any user may start a process with them, and root looks at it: what looks back again and again takes minutes."""
    says = read(program(words))
    assert (says.monitors, says.port) == ((), None)


@given(st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), st.text(), max_size=5))
def test_settings_say_what_was_put_into_them(values: dict[str, str]) -> None:
    text = ",".join(f"{name}={value.replace(',', ',,')}" for name, value in values.items())
    assert settings(text) == values


@given(st.lists(st.text('-=,{}"unixqmpser:/no\x00é\ud800', max_size=30), max_size=8))
def test_any_words_at_all_are_read(words: list[str]) -> None:
    for option in ("-qmp", "-mon", "-chardev", "-device", "-name"):
        says = read(["qemu", *(each for word in words for each in (option, word))])
        assert says.name.isprintable()
        assert all(monitor.told.isprintable() for monitor in says.monitors)
