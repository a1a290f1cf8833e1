# SPDX-License-Identifier: Apache-2.0
"""``vcpud --install-service`` and ``--uninstall-service``: what a package does, for guests that have none.

pip brings the command. The files that make a service of it (unit, udev rule, configuration, man page) are in
``shipped``, and are put where an administrator's own files lie. A package of a distribution leaves ``shipped`` out: it
has put them elsewhere.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vcpu_guest import __version__
from vcpu_guest.config import DEFAULT_PATH, DEFAULT_PORT
from vcpu_guest.errors import InstallError

UNIT = "/etc/systemd/system/vcpud.service"
RULE = "/etc/udev/rules.d/60-vcpud.rules"
PAGE = "/usr/local/share/man/man8/vcpud.8"
#: The first line of a file that is ours to replace and to remove, after the sign of a comment.
_MARK = "Put here by vcpud --install-service"
#: Where packages have the unit.
_OF_PACKAGE = "/usr/lib/systemd/system/vcpud.service"
#: What the unit's sandbox hides (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - looked at, and not written to
_ELSEWHERE = "install vcpud elsewhere, as in /opt/vcpud"
#: What systemd takes as a word of ExecStart= as it is (systemd.service(5)).
_PLAIN = re.compile(r"[A-Za-z0-9_./+@-]+")
#: Modules that pip has to have brought, by the names of their distributions.
_MODULES = {"grpc": "grpcio", "google.protobuf": "protobuf", "pyudev": "pyudev", "structlog": "structlog"}
#: Seconds for each command of systemd's and udev's.
_PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files go: below ``root``, "/" unless an image is made."""

    root: Path

    def inside(self, path: str) -> str:
        """Return how a system that boots from ``root`` calls what is called ``path`` now."""
        with suppress(ValueError):
            return f"/{Path(path).relative_to(self.root.resolve())}"
        return path

    def of(self, path: str) -> Path:
        """Return where the file that is to be found at ``path`` lies now."""
        return self.root / path.lstrip("/")

    @property
    def boots(self) -> bool:
        """Whether this is the system that runs here, with a systemd to tell of it."""
        return self.root.resolve() == Path("/") and Path("/run/systemd/system").is_dir()


def install(root: str) -> Iterator[str]:
    """Put the service in place below ``root`` and start it. Yield what was done, in lines for people.

    Nothing is yielded if all was in place. Raise InstallError, before anything is written, with all that is missing.
    """
    place = Place(Path(root))
    command = _command(place)
    missing = list(_missing(place, command))
    if missing:
        raise InstallError("the service cannot be installed:\n" + "\n".join(f"  - {line}" for line in missing))
    existed = place.of(UNIT).exists()
    written = []
    for path, text in _texts(command).items():
        if path == DEFAULT_PATH and place.of(path).exists():
            continue  # it is the administrator's
        if _write(place.of(path), text):
            written.append(path)
            yield f"wrote {place.of(path)}"
    if written and place.boots:
        yield from _start(written, again=existed)


def uninstall(root: str) -> Iterator[str]:
    """Stop the service and remove what ``install`` has put below ``root``. Yield what was done, in lines for people.

    Nothing is yielded if nothing was there. Raise InstallError.
    """
    place = Place(Path(root))
    _may_write(place)
    ours = [path for path in (UNIT, RULE, PAGE) if _is_ours(place.of(path))]
    if UNIT in ours and place.boots:
        _run("systemctl", "stop", "vcpud.service")
    for path in ours:
        place.of(path).unlink()
        yield f"removed {place.of(path)}"
    settings = place.of(DEFAULT_PATH)
    if settings.exists() and ours:
        if settings.read_text() == _shipped("vcpud.conf"):
            settings.unlink()
            yield f"removed {settings}"
        else:
            yield f"kept {settings}: it was changed here"
    for directory in (settings.parent, place.of(PAGE).parent):
        with suppress(OSError):  # there is more in it, or it is not there
            directory.rmdir()
    if ours and place.boots:
        _reload()
        with suppress(InstallError):  # it had not failed
            _run("systemctl", "reset-failed", "vcpud.service")


def _command(place: Place) -> str:
    """Return the path of the command vcpud that belongs to this Python."""
    path, called = Path(sysconfig.get_path("scripts")) / "vcpud", Path(sys.argv[0]).absolute()
    return place.inside(str(called if not path.exists() and called.name == "vcpud" else path))


def _texts(command: str) -> dict[str, str]:
    """Return the files by their paths. ``command`` is what the unit starts."""
    unit = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={command}", _shipped("vcpud.service"), count=1)
    page = _shipped("vcpud.8").replace("@VERSION@", __version__)
    mark = f"{_MARK} ({__version__}); vcpud --uninstall-service takes it away.\n"
    return {
        DEFAULT_PATH: _shipped("vcpud.conf"),
        PAGE: f'.\\" {mark}{page}',
        UNIT: f"# {mark}{unit}",
        # last: as soon as udev reads it, the unit is asked for
        RULE: f"# {mark}{_shipped('60-vcpud.rules')}",
    }


def _shipped(name: str) -> str:
    """Return one of the files that the wheel carries. Raise InstallError where a package has left them out."""
    try:
        return files("vcpu_guest").joinpath("shipped", name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InstallError(
            "this vcpud came as a package of the distribution, which has its service in place: "
            "there is nothing to install or to remove beside it"
        ) from None


def _missing(place: Place, command: str) -> Iterator[str]:
    """Yield what stands in the way, each with what to do."""
    _shipped("vcpud.service")
    _may_write(place)
    if place.of(_OF_PACKAGE).exists():
        yield f"{_OF_PACKAGE} is there: a package has brought vcpud. Use that one, or remove the package first"
    for path in (UNIT, RULE, PAGE):
        if place.of(path).exists() and not _is_ours(place.of(path)):
            yield f"{path} is there, and vcpud has not put it there: move it away first"
    for program, brought in (("systemctl", "systemd starts the agent"), ("udevadm", "udev tells of its port")):
        if not _has_program(place, program):
            yield f"{program} is missing: {brought}. Install systemd and udev"
    if not os.path.lexists(place.of(command)):
        yield f"{command} is not in {place.root}: install vcpud there with pip first"
    yield from _missing_of_python()
    if not _PLAIN.fullmatch(command):
        yield f"{command!r} has characters that a unit cannot name: {_ELSEWHERE}"
    for path in dict.fromkeys((command, place.inside(sys.prefix), place.inside(sys.base_prefix))):
        for hidden in _HIDDEN:
            if Path(path).is_relative_to(hidden):
                yield f"{path} is hidden from the service, as all of {hidden} is: {_ELSEWHERE}"


def _missing_of_python() -> Iterator[str]:
    for module, distribution in _MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield f"Python cannot import {module} ({error}): pip install {distribution}"
    if ctypes.util.find_library("udev") is None:
        yield "the library libudev is missing, by which pyudev hears the kernel: install libudev1 or systemd-libs"


def _has_program(place: Place, name: str) -> bool:
    if place.root == Path("/"):
        return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") is not None
    return any(os.path.lexists(place.of(f"{folder}/{name}")) for folder in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"))


def _may_write(place: Place) -> None:
    """Raise InstallError if this is not root's system, or not root."""
    if not place.root.is_dir():
        raise InstallError(f"{place.root} is no directory")
    if place.root == Path("/") and os.geteuid() != 0:
        raise InstallError("only root may install or remove a service: use sudo")


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _MARK in file.readline()
    except FileNotFoundError:
        return False


def _write(path: Path, text: str) -> bool:
    """Write the file whole, for all to read, unless it is so already. Return whether it was written."""
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".vcpud-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return True


def _start(written: list[str], *, again: bool) -> Iterator[str]:
    """Have systemd and udev read what was written, and the port start the service."""
    _reload()
    if again and {UNIT, DEFAULT_PATH} & set(written):
        _run("systemctl", "try-restart", "vcpud.service")
    if os.path.exists(DEFAULT_PORT):
        _run("systemctl", "start", "vcpud.service")
        yield "vcpud runs"
    else:
        yield f"vcpud starts when its port appears: this machine has no {DEFAULT_PORT}"


def _reload() -> None:
    _run("systemctl", "daemon-reload")
    _run("udevadm", "control", "--reload")
    _run("udevadm", "trigger", "--action=change", "--subsystem-match=virtio-ports")
    _run("udevadm", "settle", "--timeout=30")


def _run(*command: str) -> None:
    """Run one of systemd's or udev's commands. Raise InstallError with its words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise InstallError(f"{' '.join(command)}: {done.stderr.strip() or f'it ended with {done.returncode}'}")
