# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vcpu_guest.config import DEFAULT_PORT, Settings, load, parse
from vcpu_guest.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[3] / "packaging/vcpud.conf"


def test_no_file_means_the_defaults_unless_it_was_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == Settings(DEFAULT_PORT, "info", "text")
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none", required=True)


def test_every_key_is_taken() -> None:
    text = b'port = "/dev/x"\nlog_level = "debug"\nlog_format = "json"\n'
    text += b"eject_gate = true\nhooks = true\nhook_timeout = 2\nkeep_affinity = true\n"
    assert parse(text, "f") == Settings(
        "/dev/x", "debug", "json", eject_gate=True, hooks=True, hook_timeout=2.0, keep_affinity=True
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"prot = 1", "unknown key 'prot'"),
        (b'port = "relative"', "absolute path"),
        (b"port = 1", "absolute path"),
        (b'log_level = "loud"', "log_level must be one of"),
        (b"log_level = []", "log_level must be one of"),
        (b'log_format = "xml"', "log_format must be one of"),
        (b"log_format = {}", "log_format must be one of"),
        (b"eject_gate = 1", "eject_gate must be true or false"),
        (b"keep_affinity = 'yes'", "keep_affinity must be true or false"),
        (b'hooks = "yes"', "hooks must be true or false"),
        (b"hook_timeout = 0", "hook_timeout must be seconds"),
        (b"hook_timeout = 301", "hook_timeout must be seconds"),
        (b"hook_timeout = nan", "hook_timeout must be seconds"),
        (b"hook_timeout = true", "hook_timeout must be seconds"),
        (b"port =", "f: "),
        (b"\xff", "f: "),
    ],
)
def test_a_mistake_is_named_with_its_file(text: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(text, "f")


def test_the_shipped_file_shows_the_defaults() -> None:
    lines = SHIPPED.read_text().splitlines()
    shown = "\n".join(line.removeprefix("#") for line in lines if line.startswith("#") and " = " in line)
    assert parse(shown.encode(), "shipped") == Settings()
    assert load(SHIPPED) == Settings()
