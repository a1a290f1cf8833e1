# SPDX-License-Identifier: Apache-2.0
"""Builds the Ansible collection: ``collection.py DIR`` puts its tarball there, ``collection.py --tree DIR`` its tree.

ansible-galaxy writes the time of the build and the order of the directory into the tarball. Here both are taken out, so
that the same tree gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import man

ROOT = Path(__file__).resolve().parents[2]
SOURCES = "packaging/ansible/ansible_collections/vcpuctl/vcpu"


def lay_out(below: Path) -> Path:
    """Copy the collection, with the licence, to where Ansible looks for it below this directory. Return its own."""
    target = below / "ansible_collections/vcpuctl/vcpu"
    shutil.rmtree(target, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", SOURCES]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in sorted(filter(None, listed)):
        copy = target / Path(name).relative_to(SOURCES)
        if (ROOT / name).is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            copy.chmod(0o755 if (ROOT / name).stat().st_mode & 0o100 else 0o644)
    shutil.copyfile(ROOT / "LICENSE", target / "LICENSE")
    (target / "LICENSE").chmod(0o644)
    return target


def build(out: Path) -> Path:
    """Build the tarball into this directory. Return its path. Raise CalledProcessError with ansible-galaxy's words."""
    galaxy = Path(sys.executable).parent / "ansible-galaxy"
    with tempfile.TemporaryDirectory(prefix="collection-") as folder:
        tree = lay_out(Path(folder))
        command = [str(galaxy), "collection", "build", "--force", "--output-path", folder, str(tree)]
        settings = Path(folder, "ansible.cfg")
        settings.write_text("[defaults]\n")  # none of the user's
        environment = {**os.environ, "HOME": folder, "ANSIBLE_CONFIG": str(settings), "LC_ALL": "C.UTF-8"}
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=folder)
        (made,) = Path(folder).glob("*.tar.gz")
        out.mkdir(parents=True, exist_ok=True)
        path = out / made.name
        path.write_bytes(settled(made.read_bytes(), int(man.source_date())))
    return path


def settled(tarball: bytes, date: int) -> bytes:
    """Return the collection's tarball with its files in the order of their names, and all of this date."""
    contents: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            contents[member.name] = (member, b"" if file is None else file.read())
    files = json.loads(contents["FILES.json"][1])
    files["files"].sort(key=lambda each: each["name"])
    manifest = json.loads(contents["MANIFEST.json"][1])
    _replace(contents, "FILES.json", files)
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(contents["FILES.json"][1]).hexdigest()
    _replace(contents, "MANIFEST.json", manifest)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        # The two that describe the others come first: ansible-galaxy reads them before it unpacks anything.
        for name in sorted(contents, key=lambda name: (name not in {"MANIFEST.json", "FILES.json"}, name)):
            member, data = contents[name]
            member.mtime, member.uid, member.gid, member.uname, member.gname = date, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=date)


def _replace(contents: dict[str, tuple[tarfile.TarInfo, bytes]], name: str, value: object) -> None:
    data = json.dumps(value, indent=1).encode()
    member = contents[name][0]
    member.size = len(data)
    contents[name] = (member, data)


def main() -> int:
    """Build or lay out; return the exit status."""
    *options, target = sys.argv[1:]
    if options == ["--tree"]:
        lay_out(Path(target))
        return 0
    print(build(Path(target)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
