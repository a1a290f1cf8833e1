# SPDX-License-Identifier: Apache-2.0
"""``vcpud --install-service`` and ``--uninstall-service``: what a package does, for guests that have none.

pip brings the command. The files that make a service of it (unit, udev rule, configuration, man page) are in
``shipped``, and are put where an administrator's own files lie. A package of a distribution leaves ``shipped`` out: it
has put them elsewhere.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
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
#: How the unit's first line goes on where the configuration is ours, too: its sha256 as it was written.
_HASH = re.compile(r"vcpud\.conf was written with sha256 ([0-9a-f]{64})")
#: Where packages have the unit.
_OF_PACKAGE = "/usr/lib/systemd/system/vcpud.service"
#: Is there where systemd runs the system (sd_booted(3)).
_BOOTED = "/run/systemd/system"
#: What the unit's sandbox hides (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - looked at, and not written to
_ELSEWHERE = "install vcpud elsewhere, as in /opt/vcpud"
#: What systemd takes as a word of ExecStart= as it is (systemd.service(5)).
_PLAIN = re.compile(r"[A-Za-z0-9_./+@-]+")
#: Modules that pip has to have brought, by the names of their distributions.
_MODULES = {"grpc": "grpcio", "google.protobuf": "protobuf", "pyudev": "pyudev", "structlog": "structlog"}
#: What systemd is asked about the service (org.freedesktop.systemd1(5)).
_PROPERTIES = ("LoadState", "NeedDaemonReload", "ActiveState", "ExecMainStartTimestampMonotonic")
#: Seconds for each command of systemd's and udev's: more than the unit may take to start.
_PATIENCE = 240.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files go: below ``root``, "/" unless an image is made."""

    root: Path

    def inside(self, path: str) -> str:
        """Return how a system that boots from ``root`` calls what is called ``path`` now."""
        for root in (self.root.absolute(), self.root.resolve()):  # which may be called by a link
            with suppress(ValueError):
                return f"/{Path(path).relative_to(root)}"
        return path

    def of(self, path: str) -> Path:
        """Return where the file that is to be found at ``path`` lies now."""
        return self.root / path.lstrip("/")

    def holds(self, path: str) -> bool:
        """Return whether the file would lie below the root, and no link on the way leads elsewhere."""
        return self.of(path).parent.resolve().is_relative_to(self.root.resolve())

    @property
    def is_here(self) -> bool:
        """Whether this is the system that runs here, or the root that somebody has changed to."""
        return self.root.resolve() == Path("/")

    @property
    def boots(self) -> bool:
        """Whether this is the system that runs here, with a systemd to tell of it."""
        return self.is_here and Path(_BOOTED).is_dir()


def install(root: str) -> Iterator[str]:
    """Put the service in place below ``root`` and start it. Yield what was done, in lines for people.

    Nothing is yielded if all was in place. Raise InstallError, before anything is written, with all that is missing.
    """
    place = _place(root)
    command = _command(place)
    missing = list(_missing(place, command))
    wanted = {path: text for path, text in _texts(command, place).items() if not _is_so(place.of(path), text)}
    hindered = {path: why for path in wanted if (why := _hindrance(place, path))}
    # The service does without its page: a system may keep all of /usr read-only.
    no_page = hindered.pop(PAGE, None)
    missing += dict.fromkeys(hindered.values())
    if missing:
        raise InstallError("the service cannot be installed:\n" + "\n".join(f"  - {line}" for line in missing))
    written = []
    for path, text in wanted.items():
        if path != PAGE or no_page is None:
            _write(place.of(path), text)
            written.append(path)
            yield f"wrote {place.of(path)}"
    if written and no_page is not None:
        yield f"left out {place.of(PAGE)}: {no_page}"
    if place.boots:
        yield from _settle(place, written)
    elif place.is_here and written:
        yield "systemd does not run here: vcpud starts where this system boots with it"


def uninstall(root: str) -> Iterator[str]:
    """Stop the service and remove what ``install`` has put below ``root``. Yield what was done, in lines for people.

    Nothing is yielded if nothing was there. Raise InstallError.
    """
    place = _place(root)
    _may_write(place)
    # The unit comes last: by it the next call knows what this one has not seen to its end, and the configuration.
    ours = [path for path in (RULE, PAGE, UNIT) if place.holds(path) and _is_ours(place.of(path))]
    settings, packaged = place.of(DEFAULT_PATH), place.of(_OF_PACKAGE).exists()
    # A package that has come meanwhile has taken the configuration over.
    left = bool(ours) and settings.exists() and not packaged
    if left and place.holds(DEFAULT_PATH) and _is_untouched(place):
        ours.insert(-1, DEFAULT_PATH)
        left = False
    stopped = UNIT in ours and place.boots
    if stopped:
        _run("systemctl", "stop", "vcpud.service")
    for path in ours:
        place.of(path).unlink()
        yield f"removed {place.of(path)}"
    if left:
        yield f"kept {settings}: it was changed here"
    for directory in (settings.parent, place.of(PAGE).parent):
        with suppress(OSError):  # there is more in it, or it is not there
            directory.rmdir()
    if ours and place.boots:
        _reload()
        with suppress(InstallError):  # it had not failed
            _run("systemctl", "reset-failed", "vcpud.service")
    # udev tells of the port no more than once, and that had ours started.
    if stopped and packaged and os.path.exists(DEFAULT_PORT):
        _run("systemctl", "start", "vcpud.service")
        yield "vcpud runs, as its package has it"


def _place(root: str) -> Place:
    """Return where the files go. Raise InstallError for no root at all, which is a variable that nobody has set."""
    if not root:
        raise InstallError("--root has no value: give a directory, or leave it out")
    return Place(Path("/") if os.path.realpath(root) == "/" else Path(root))


def _command(place: Place) -> str:
    """Return the path of the command vcpud that belongs to this Python."""
    path, called = Path(sysconfig.get_path("scripts")) / "vcpud", Path(sys.argv[0]).absolute()
    return place.inside(str(called if not path.exists() and called.name == "vcpud" else path))


def _texts(command: str, place: Place) -> dict[str, str]:
    """Return the files by their paths. ``command`` is what the unit starts.

    The configuration is among them unless an administrator has changed it, or brought it.
    """
    unit = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={command}", _shipped("vcpud.service"), count=1)
    page = _shipped("vcpud.8").replace("@VERSION@", __version__)
    mark = f"{_MARK} ({__version__}); vcpud --uninstall-service takes it away.\n"
    settings = _shipped("vcpud.conf")
    configuration: dict[str, str] = {}
    digest = _digest_in(place.of(UNIT))
    if not place.of(DEFAULT_PATH).exists() or _is_untouched(place):
        configuration[DEFAULT_PATH] = settings
        digest = hashlib.sha256(settings.encode()).hexdigest()
    known = f" vcpud.conf was written with sha256 {digest}." if digest else ""
    return {
        # before the configuration, which has no mark: after an unfinished run something has to tell that it is ours
        PAGE: f'.\\" {mark}{page}',
        **configuration,  # before the unit: an unfinished run must not leave the new hash beside the old configuration
        UNIT: f"# {mark.rstrip()}{known}\n{unit}",
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


def _hindrance(place: Place, path: str) -> str:
    """Return why the file cannot be written; nothing if it can, as far as that is seen beforehand."""
    folder = place.of(path).parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is no directory"
    if not place.holds(path):
        return f"{folder} leads out of {place.root}"
    if not os.access(folder, os.W_OK):  # root may not either where the file system is read-only
        return f"{folder} cannot be written to"
    return ""


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


def _digest_in(unit: Path) -> str:
    """Return the hash of the configuration that was written with this unit; empty if none was."""
    if not _is_ours(unit):
        return ""
    with unit.open(encoding="utf-8", errors="replace") as file:
        found = _HASH.search(file.readline())
    return found[1] if found else ""


def _is_untouched(place: Place) -> bool:
    """Return whether the configuration is as this version has it, or as the one did that wrote the unit."""
    try:
        digest = hashlib.sha256(place.of(DEFAULT_PATH).read_bytes()).hexdigest()
    except FileNotFoundError:
        return False
    return digest in (hashlib.sha256(_shipped("vcpud.conf").encode()).hexdigest(), _digest_in(place.of(UNIT)))


def _is_so(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8", errors="replace") == text


def _write(path: Path, text: str) -> None:
    """Write the file whole, for all to read."""
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


@dataclass(frozen=True, slots=True)
class _Service:
    """What systemd has of the service. ``stale``: its files have changed since systemd read them.

    ``began`` is when its process did, in seconds of time.time(); None if that is not known.
    """

    loaded: bool
    stale: bool
    runs: bool
    began: float | None

    @classmethod
    def seen(cls) -> _Service:
        """Ask systemd. What it does not tell counts as not so: more is done than was needed then, nothing missed."""
        told = _run("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "vcpud.service")
        has = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in told.splitlines())}
        # In microseconds of the monotonic clock. The time of day would be in words that differ by version and locale.
        begun = has.get("ExecMainStartTimestampMonotonic", "")
        ago = time.monotonic() - int(begun) / 1e6 if begun.isdecimal() and int(begun) else None
        return cls(
            has.get("LoadState") == "loaded",
            has.get("NeedDaemonReload") == "yes",
            has.get("ActiveState") in ("active", "activating", "reloading"),
            None if ago is None else time.time() - ago,
        )

    def is_older_than(self, file: Path) -> bool:
        """Return whether the process that runs began before the file was written."""
        written = file.stat().st_mtime
        # A time that is still to come is of another clock, and would have the service started anew at each call.
        return self.runs and self.began is not None and self.began < written <= time.time()


def _settle(place: Place, written: list[str]) -> Iterator[str]:
    """Have systemd and udev read what was written, and the port start the service. Do nothing where all that is so.

    What an earlier call has written and not seen to its end is made up for: so systemd is asked, whatever was written.
    """
    service, port = _Service.seen(), os.path.exists(DEFAULT_PORT)
    old = service.runs and (bool({UNIT, DEFAULT_PATH} & set(written)) or service.is_older_than(place.of(UNIT)))
    if not written and service.loaded and not service.stale and not old and (service.runs or not port):
        return
    _reload()
    if old:
        _run("systemctl", "try-restart", "vcpud.service")
    if port:
        _run("systemctl", "start", "vcpud.service")
        yield "vcpud runs"
    else:
        yield f"vcpud starts when its port appears: this machine has no {DEFAULT_PORT}"


def _reload() -> None:
    _run("systemctl", "daemon-reload")
    _run("udevadm", "control", "--reload")
    _run("udevadm", "trigger", "--action=change", "--subsystem-match=virtio-ports")
    with suppress(InstallError):  # others' devices may keep udev busy for as long as they like
        _run("udevadm", "settle", "--timeout=30")


def _run(*command: str) -> str:
    """Run one of systemd's or udev's commands. Return what it wrote. Raise InstallError with its words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise InstallError(f"{' '.join(command)}: {done.stderr.strip() or f'it ended with {done.returncode}'}")
    return done.stdout
