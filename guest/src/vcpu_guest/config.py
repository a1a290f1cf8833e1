# SPDX-License-Identifier: Apache-2.0
"""/etc/vcpud/vcpud.conf: TOML, every key optional, an unknown key an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcpu_guest.errors import ConfigError
from vcpu_guest.logs import LEVELS, Format, Level

DEFAULT_PATH = "/etc/vcpud/vcpud.conf"
#: udev's own rules make the link with the port's name (50-udev-default.rules).
DEFAULT_PORT = "/dev/virtio-ports/org.vcpuctl.agent.0"
_KEYS = ("port", "log_level", "log_format", "eject_gate", "hooks", "hook_timeout", "keep_affinity", "load")
#: Seconds that each hook may take.
DEFAULT_HOOK_TIMEOUT = 10.0
_MAX_HOOK_TIMEOUT = 300
_FORMATS: tuple[Format, ...] = ("text", "json")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can choose. `hook_timeout` is in seconds."""

    port: str = DEFAULT_PORT
    log_level: Level = "info"
    log_format: Format = "text"
    eject_gate: bool = False
    hooks: bool = False
    hook_timeout: float = DEFAULT_HOOK_TIMEOUT
    keep_affinity: bool = False
    load: bool = True


_DEFAULTS = Settings()


def load(path: str | Path, *, required: bool = False) -> Settings:
    """Read the file; return the defaults if there is none and it is not `required`. Raise ConfigError."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file") from None
        return Settings()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if not data.strip():
        return Settings()
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Settings:
    """Return the settings in the file's contents. Raise ConfigError, which names the file by `name`."""
    import tomllib

    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: {error}") from error
    unknown = sorted(values.keys() - set(_KEYS))
    if unknown:
        raise ConfigError(f"{name}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    port = values.get("port", DEFAULT_PORT)
    if not isinstance(port, str) or not port.startswith("/"):
        raise ConfigError(f"{name}: port must be an absolute path, not {port!r}")
    level = values.get("log_level", "info")
    if level not in tuple(LEVELS):
        raise ConfigError(f"{name}: log_level must be one of {', '.join(LEVELS)}, not {level!r}")
    form = values.get("log_format", "text")
    if form not in _FORMATS:
        raise ConfigError(f"{name}: log_format must be one of {', '.join(_FORMATS)}, not {form!r}")
    timeout = values.get("hook_timeout", DEFAULT_HOOK_TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _MAX_HOOK_TIMEOUT:
        raise ConfigError(f"{name}: hook_timeout must be seconds, at most {_MAX_HOOK_TIMEOUT}, not {timeout!r}")
    flags = (_flag(values, key, name) for key in ("eject_gate", "hooks", "keep_affinity", "load"))
    gate, hooks, keep, load = flags
    return Settings(port, level, form, gate, hooks, timeout, keep, load)


def _flag(values: dict[str, Any], key: str, name: str) -> bool:
    value = values.get(key, getattr(_DEFAULTS, key))
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: {key} must be true or false, not {value!r}")
    return value
