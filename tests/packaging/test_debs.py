# SPDX-License-Identifier: Apache-2.0
"""The three Debian packages: what they hold, what they need, and that Debian's own checker finds no fault."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import man
import pytest
from vcpu_host.local.carried import DIRECTORY

if TYPE_CHECKING:
    from debfile import Deb, Run

PACKAGES = ("python3-vcpu-proto", "vcpu-host", "vcpu-guest")


def beside_python(deb: Deb) -> set[str]:
    """The package's files that are neither Python modules nor documentation."""
    return {
        name
        for name in deb.files()
        if not name.startswith(("/usr/lib/python3/", "/usr/share/doc/", "/usr/lib/vcpu-host/"))
    }


def modules(root: Path, part: str) -> set[str]:
    source = root / part / "src"
    return {
        f"/usr/lib/python3/dist-packages/{path.relative_to(source)}"
        for path in source.rglob("*")
        # what is shipped for want of a package a package has elsewhere
        if path.is_file() and not {"__pycache__", "shipped"}.intersection(path.parts)
    }


@pytest.mark.parametrize(("part", "package"), list(zip(("proto", "host", "guest"), PACKAGES, strict=True)))
def test_a_package_holds_every_module_of_its_part_and_no_bytecode(
    debs: dict[str, Deb], root: Path, part: str, package: str
) -> None:
    held = {name for name in debs[package].files() if name.startswith("/usr/lib/python3/") and ".dist-info" not in name}
    assert held == modules(root, part)


def test_the_contract_can_be_read_from_the_installed_package(debs: dict[str, Deb], root: Path, tmp_path: Path) -> None:
    name = "usr/lib/python3/dist-packages/vcpu_proto/v1/agent.proto"
    shipped = debs["python3-vcpu-proto"].extract(tmp_path) / name
    assert shipped.read_bytes() == (root / "proto/src/vcpu_proto/v1/agent.proto").read_bytes()


def test_the_guest_package_brings_command_unit_rule_configuration_and_page(debs: dict[str, Deb]) -> None:
    assert beside_python(debs["vcpu-guest"]) == {
        "/etc/vcpud/vcpud.conf",
        "/usr/lib/systemd/system/vcpud.service",
        "/usr/lib/udev/rules.d/60-vcpud.rules",
        "/usr/bin/vcpud",
        "/usr/share/man/man8/vcpud.8.gz",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_files_only_where_no_path_is_another_ones_alias(debs: dict[str, Deb], package: str) -> None:
    # /lib and its like are links into /usr: what a package has there, dpkg knows by a name that is not the file's own.
    assert {name.split("/")[1] for name in debs[package].files()} <= {"usr", "etc"}


def test_the_host_package_brings_command_page_schemas_and_completions(debs: dict[str, Deb], root: Path) -> None:
    schemas = {f"/usr/share/vcpuctl/json/{path.name}" for path in root.glob("docs/json/*.schema.json")}
    assert len(schemas) > 10
    assert beside_python(debs["vcpu-host"]) == schemas | {
        "/usr/bin/vcpuctl",
        "/usr/lib/systemd/system/vcpuctl.service",
        "/usr/lib/systemd/system/vcpuctl.socket",
        "/usr/lib/sysusers.d/vcpuctl.conf",
        "/usr/share/vcpuctl/grafana/vcpuctl.json",
        "/usr/share/vcpuctl/prometheus/vcpuctl.rules.yml",
        "/usr/share/bash-completion/completions/vcpuctl",
        "/usr/share/fish/vendor_completions.d/vcpuctl.fish",
        "/usr/share/man/man1/vcpuctl.1.gz",
        "/usr/share/python3/runtime.d/vcpu-host.rtupdate",
        "/usr/share/zsh/vendor-completions/_vcpuctl",
    }


def test_commands_can_be_run_and_the_configuration_is_kept_on_upgrades(
    debs: dict[str, Deb], run: Run, tmp_path: Path
) -> None:
    assert debs["vcpu-host"].files()["/usr/bin/vcpuctl"] == "-rwxr-xr-x"
    assert debs["vcpu-guest"].files()["/usr/bin/vcpud"] == "-rwxr-xr-x"
    run("dpkg-deb", "--control", str(debs["vcpu-guest"].path), str(tmp_path))
    assert (tmp_path / "conffiles").read_text().split() == ["/etc/vcpud/vcpud.conf"]


def test_the_carried_qemu_qmp_is_the_library_alone_and_where_vcpu_host_looks(debs: dict[str, Deb]) -> None:
    held = {name.removeprefix(f"{DIRECTORY}/") for name in debs["vcpu-host"].files() if name.startswith(DIRECTORY)}
    assert "qemu/qmp/qmp_client.py" in held
    assert not {name for name in held if "legacy" in name or "shell" in name or "tui" in name}


def test_the_host_package_runs_on_debians_python_with_what_it_carries(
    debs: dict[str, Deb], run: Run, tmp_path: Path
) -> None:
    for deb in debs.values():
        deb.extract(tmp_path)
    packages, vendor = tmp_path / "usr/lib/python3/dist-packages", tmp_path / "usr/lib/vcpu-host/vendor"
    # -S leaves out whatever this machine has installed: the import can only be served from the package. So it is for
    # any program that uses the library, and not for the command alone.
    program = (
        f"import sys; sys.path.append('{packages}'); from vcpu_host.local import carried; carried.find('{vendor}'); "
        "import vcpu_host.qmp.monitor; import qemu.qmp; print(qemu.qmp.__file__)"
    )
    assert run("/usr/bin/python3", "-ISBc", program).startswith(str(vendor))
    version = debs["vcpu-host"].field("Version")
    program = f"import sys; sys.path += ['{packages}', '{vendor}']; from vcpu_host.cli.main import main; main()"
    assert version in run("/usr/bin/python3", "-ISBc", program, "--version")


def test_the_guest_package_needs_only_packages_of_the_distribution_and_the_contract(debs: dict[str, Deb]) -> None:
    needed = {re.sub(r"[ :(].*", "", need) for need in debs["vcpu-guest"].field("Depends").split(", ")}
    assert needed == {
        "init-system-helpers",
        "python3",
        "python3-grpcio",
        "python3-protobuf",
        "python3-pyudev",
        "python3-structlog",
        "python3-vcpu-proto",
        "udev",
    }


@pytest.mark.parametrize("package", ["vcpu-guest", "vcpu-host"])
def test_a_stock_system_can_install_it_from_the_distribution_alone(
    debs: dict[str, Deb], run: Run, tmp_path: Path, package: str
) -> None:
    nothing_installed = tmp_path / "status"
    nothing_installed.touch()
    ours = [str(debs[name].path) for name in (package, "python3-vcpu-proto")]
    options = ["-o", f"Dir::State::status={nothing_installed}", "-o", "Debug::NoLocking=1", "--no-install-recommends"]
    simulated = run("apt-get", "install", "--simulate", *options, *ours)
    installed = dict(re.findall(r"^Inst (\S+) \((.*?)\)$", simulated, re.MULTILINE))
    assert {package, "python3-vcpu-proto", "python3-grpcio"} <= installed.keys()
    elsewhere = {name: origin for name, origin in installed.items() if "Debian" not in origin}
    assert elsewhere.keys() == {package, "python3-vcpu-proto"}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_in_a_package_is_of_the_time_of_its_checkout(
    debs: dict[str, Deb], tmp_path: Path, package: str
) -> None:
    whole = debs[package].extract(tmp_path)
    assert {path.stat().st_mtime for path in whole.rglob("*") if path.is_file()} == {int(man.source_date())}


def test_both_ends_want_the_contract_of_exactly_their_version(debs: dict[str, Deb], root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    for package in PACKAGES:
        assert debs[package].field("Version") == version
    for package in ("vcpu-host", "vcpu-guest"):
        assert f"python3-vcpu-proto (= {version})" in debs[package].field("Depends")


def test_lintian_has_nothing_to_say_at_the_level_of_a_warning(debs: dict[str, Deb], run: Run) -> None:
    paths = [str(deb.path) for deb in debs.values()]
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", *paths, env={"PATH": "/usr/bin:/bin"}) == ""


def test_the_guest_package_starts_the_agent_only_where_its_port_is(
    debs: dict[str, Deb], run: Run, tmp_path: Path
) -> None:
    run("dpkg-deb", "--control", str(debs["vcpu-guest"].path), str(tmp_path))
    script = (tmp_path / "postinst").read_text()
    run("sh", "-n", str(tmp_path / "postinst"))
    starts = [line.strip() for line in script.splitlines() if re.search(r"deb-systemd-invoke|systemctl.* start", line)]
    assert starts == ["deb-systemd-invoke restart vcpud.service || true"]
    assert script.index('grep -qsx "$name" "$port"/*/name') < script.index(starts[0])
    assert "deb-systemd-helper enable" not in script
