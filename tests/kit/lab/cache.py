# SPDX-License-Identifier: Apache-2.0
"""The cache of everything the lab builds: outside the tree, atomic, locked, pruned.

An *entry* is a directory ``KIND/KEY``: the kind says what it is for, the key is a hash of all it was made from.
Building a new entry of a kind removes the kind's older ones. An entry in use is held by a shared lock (``flock`` on a
file beside it), a build and a removal take the lock alone, so any number of runs can race.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUILD_ID = "build-id"


def default_root() -> Path:
    """$VCPU_LAB_CACHE, or ``vcpuctl-lab`` in the user's cache directory."""
    named = os.environ.get("VCPU_LAB_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vcpuctl-lab"


def digest(*parts: object) -> str:
    """A short hash of JSON-able parts: the key of what is built from them."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_tree(*roots: Path) -> str:
    """A short hash of the names, modes and contents of files and of all files below directories."""
    parts: list[object] = []
    for root in roots:
        files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
        for path in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            parts.append([path.relative_to(root.parent).as_posix(), path.stat().st_mode & 0o111, content])
    return digest(*parts)


@dataclass(frozen=True)
class Entry:
    """One finished directory of the cache; stays locked (shared) as long as the caller's ``with`` lasts."""

    path: Path
    #: Differs for each build, even of the same recipe: what is layered on a build belongs to that build alone.
    build_id: str


class Cache:
    """Entries under one root directory."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    @contextmanager
    def entry(self, kind: str, key: str, build: Callable[[Path], None]) -> Iterator[Entry]:
        """The entry ``kind/key``, built by ``build(directory)`` if it is not there yet, held for the ``with``.

        Whatever ``build`` raises goes up, and leaves nothing behind.
        """
        folder = self.root / kind
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / key
        lock = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            while not path.is_dir():
                # flock(2) does not upgrade atomically: another process may build between the two calls, so look again.
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.is_dir():
                    self._build(folder, path, build)
                fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(path)
            yield Entry(path, (path / BUILD_ID).read_text())
        finally:
            os.close(lock)

    def _build(self, folder: Path, path: Path, build: Callable[[Path], None]) -> None:
        for left in folder.glob(f".{path.name}.*"):
            shutil.rmtree(left)  # we hold the lock alone: its builder was killed
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder))
        try:
            work.chmod(0o755)
            build(work)
            (work / BUILD_ID).write_text(uuid.uuid4().hex)
            work.rename(path)
        except BaseException:
            shutil.rmtree(work)
            raise
        self._remove(old for old in folder.iterdir() if old.is_dir() and old != path and old.name[0] != ".")

    def prune(self, unused_for: float = 0.0) -> list[Path]:
        """Remove every entry that nobody holds and nobody used for that many seconds; return what went."""
        if not self.root.is_dir():
            return []
        limit = time.time() - unused_for
        kinds = (kind for kind in self.root.iterdir() if kind.is_dir())
        entries = [entry for kind in kinds for entry in kind.iterdir() if entry.is_dir()]
        return self._remove(entry for entry in entries if entry.stat().st_mtime <= limit)

    @staticmethod
    def _remove(paths: Iterator[Path]) -> list[Path]:
        gone = []
        for path in paths:
            key = path.name.removeprefix(".").split(".")[0]  # ".KEY.RANDOM" is an unfinished build
            lock = os.open(path.parent / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                gone.append(path)
            except BlockingIOError:
                continue  # in use by another run: that run's next build prunes it
            finally:
                os.close(lock)
        return gone
