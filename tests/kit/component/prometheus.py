# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus and its promtool, in the lab's cache: the two programs need nothing but the C library."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from kit.component.cli import until
from kit.lab import host
from kit.lab.cache import Cache, digest
from kit.until import DEADLINE

#: Of Debian 12: the oldest that a host of ours is likely to be scraped by.
_SUITE, _PACKAGE = "bookworm", "prometheus"
_RECIPE = 1
_PROGRAMS = ("prometheus", "promtool")


@contextmanager
def programs() -> Iterator[Path]:
    """Yield the directory of both programs; they are fetched once, and stay in the cache."""

    def build(folder: Path) -> None:
        tarball = folder / "root.tar"
        host.bootstrap([_SUITE], [_PACKAGE], tarball, variant="extract")
        wanted = [f"./usr/bin/{name}" for name in _PROGRAMS]
        host.run(["tar", "-C", str(folder), "--strip-components=3", "-xf", str(tarball), *wanted])
        tarball.unlink()

    with Cache().entry("prometheus", digest(_RECIPE, _SUITE, _PACKAGE), build) as entry:
        yield entry.path


def check_metrics(folder: Path, text: str) -> str:
    """Return what promtool finds wrong with metrics; empty if nothing."""
    checked = subprocess.run(
        [folder / "promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return checked.stdout + checked.stderr + ("" if checked.returncode == 0 else f"status {checked.returncode}")


def check_expressions(programs: Path, folder: Path, expressions: Sequence[str]) -> str:
    """Return what promtool finds wrong with expressions; empty if nothing. Rules of recording have them."""
    rules = [{"record": f"x:y{place}", "expr": each} for place, each in enumerate(expressions)]
    file = folder / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))  # JSON is YAML
    checked = subprocess.run(
        [programs / "promtool", "check", "rules", file], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def check_alerts(programs: Path, folder: Path, rules: Path, tests: Sequence[Mapping[str, object]]) -> str:
    """Return what promtool finds wrong with rules, or with what becomes of them in these tests; empty if nothing."""
    file = folder / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(rules)], "tests": list(tests)}))
    for words in (("check", "rules", rules), ("test", "rules", file)):
        checked = subprocess.run(
            [programs / "promtool", *words], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        if checked.returncode != 0:
            return checked.stdout + checked.stderr
    return ""


class Prometheus:
    """A server that scrapes one address each second, from entry to exit of the context."""

    def __init__(self, programs: Path, folder: Path, scraped: str) -> None:
        self._program = programs / "prometheus"
        self._folder = folder
        self._address = f"127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: vcpuctl, static_configs: [{{targets: ['{scraped}']}}]}}]\n"
        )

    def __enter__(self) -> Self:
        self._log = (self._folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                *(self._program, f"--config.file={self._folder}/prometheus.yml"),
                *(f"--storage.tsdb.path={self._folder}/data", f"--web.listen-address={self._address}"),
            ],
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait(30)
        self._log.close()

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that the expression gives now; none before it is ready."""
        words = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{self._address}/api/v1/query?{words}", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except OSError:
            return []
        return [(each["metric"], float(each["value"][1])) for each in found["data"]["result"]]

    def wait_value(self, expression: str, value: float) -> None:
        """Wait until the expression is one series with this value. The first scrape comes after six seconds."""
        until(lambda: [each for _, each in self.query(expression)] == [value])

    def wait_any(self, expression: str, title: str, above: float | None = None) -> None:
        """Wait until the expression gives any series with a number, ``above`` this if that is given.

        ``title`` is whose the expression is.
        """
        least = float("-inf") if above is None else above
        until(lambda: any(value > least for _, value in self.query(expression)), what=f"{title}: {expression}")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
