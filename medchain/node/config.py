"""A node's settings: the documented defaults, then HOME/node.toml, then variables of the environment. Unknown keys are refused.

node_config/default.toml holds the defaults and their documentation and travels in the wheel; SETTINGS below holds their kinds and bounds.
Consensus parameters are never here, they are on the chain (lessons.md: FISCO-BCOS #4656).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medchain.errors import InvariantBroken, Malformed, Rejected

FILE_NAME: Final = "node.toml"
FILE_BYTES_MAX: Final = 64 * 1024
PREFIX: Final = "MEDCHAIN_"
OTHER_VARIABLES: Final = frozenset({"MEDCHAIN_PASSPHRASE", "MEDCHAIN_AT", "MEDCHAIN_PYTHON", "MEDCHAIN_TRACEBACK"})
"""Variables of commands and scripts, which are no settings of a node."""

REFUSALS: Final[dict[str, str]] = {
    "config.missing": "There is no configuration in the folder: it is not a node's home.",
    "config.unreadable": "The configuration cannot be read, or is not TOML.",
    "config.unknown-key": "The configuration or the environment names a setting that does not exist.",
    "config.bad-value": "A setting has a value of the wrong type or out of its bounds.",
}

ADDRESS: Final = "address"
ADDRESSES: Final = "addresses"
CHOICE: Final = "choice"
FOLDER: Final = "folder"
NUMBER: Final = "number"
TERABYTE: Final = 10**12
DAY_MS: Final = 86_400_000
ADDRESSES_MAX: Final = 256
"""Hospitals named by one setting, more than a network has."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a setting may be."""

    kind: str
    low: int = 0
    high: int = 0
    """Bounds of a NUMBER, inclusive."""
    choices: tuple[str, ...] = ()
    """Words of a CHOICE."""
    is_in_environment: bool = True
    """Whether a variable may set it; drills stand in the file, where the next reader sees them."""


SETTINGS: Final[dict[tuple[str, str], Setting]] = {
    ("rpc", "listen"): Setting(ADDRESS),
    ("rpc", "in_flight_max"): Setting(NUMBER, 1, 65_536),
    ("peers", "listen"): Setting(ADDRESS),
    ("peers", "dial"): Setting(ADDRESSES),
    ("vault", "bytes_max"): Setting(NUMBER, 0, 10_000 * TERABYTE),
    ("vault", "disk_free_bytes_min"): Setting(NUMBER, 0, 100 * TERABYTE),
    ("vault", "replications_at_once"): Setting(NUMBER, 1, 64),
    ("runtime", "tick_ms"): Setting(NUMBER, 1, 1_000),
    ("runtime", "idle_tick_ms"): Setting(NUMBER, 1, 1_000),
    ("runtime", "inbox_events_max"): Setting(NUMBER, 100, 1_000_000),
    ("runtime", "verifying_threads"): Setting(NUMBER, 0, 64),
    ("runtime", "pool_bytes_max"): Setting(NUMBER, 1024 * 1024, 16 * 1024**3),
    ("log", "level"): Setting(CHOICE, choices=("debug", "info", "warning", "error")),
    ("log", "bytes_max"): Setting(NUMBER, 4_096, TERABYTE),
    ("debug", "record_traffic_directory"): Setting(FOLDER),
    ("debug", "clock_offset_ms"): Setting(NUMBER, -DAY_MS, DAY_MS, is_in_environment=False),
}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The settings in force, named section_key; default.toml says what each means."""

    home: Path
    rpc_listen: tuple[str, int]
    rpc_in_flight_max: int
    peers_listen: tuple[str, int]
    peers_dial: Mapping[str, str]
    """Name of a hospital → `host:port`."""
    vault_bytes_max: int
    vault_disk_free_bytes_min: int
    vault_replications_at_once: int
    runtime_tick_ms: int
    runtime_idle_tick_ms: int
    runtime_inbox_events_max: int
    runtime_verifying_threads: int
    runtime_pool_bytes_max: int
    log_level: str
    log_bytes_max: int
    debug_record_traffic_directory: Path | None
    debug_clock_offset_ms: int

    @property
    def rpc_url(self) -> str:
        """The address at which local clients find the node."""
        host, port = self.rpc_listen
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @classmethod
    def load(cls, home: str | Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
        """Read the settings of the node in folder `home`; `environment` is the process's own by default.

        Raises Rejected: config.missing, config.unreadable, config.unknown-key, config.bad-value.
        """
        folder = Path(home)
        file = folder / FILE_NAME
        values = _defaults()
        for key, value in _read_settings(file, _read(file)).items():
            values[key] = (value, f"{key[1]} in section [{key[0]}] of {file}")
        for key, text in _overrides(os.environ if environment is None else environment).items():
            values[key] = (_from_text(SETTINGS[key], text), f"the variable {_variable(key)}")
        fields = {f"{section}_{key}": _checked(SETTINGS[section, key], *values[section, key]) for section, key in SETTINGS}
        directory = fields["debug_record_traffic_directory"]
        fields["debug_record_traffic_directory"] = folder / directory if directory else None
        return cls(home=folder, **fields)


def render(values: Mapping[tuple[str, str], str | int]) -> str:
    """Return the text of a node.toml that sets `values`, by (section, key). Raises Rejected as loading it would."""
    lines = ["# Settings of this node that differ from the defaults; medchain's node_config/default.toml explains every one."]
    for section in dict.fromkeys(section for section, _ in SETTINGS):
        chosen = {key: value for (its, key), value in values.items() if its == section}
        if chosen:
            lines += ["", f"[{section}]"]
        for key, value in chosen.items():
            setting = _known(section, key, "the settings to write")
            _checked(setting, value, f"{key} in section [{section}]")
            lines.append(f"{key} = {value}" if isinstance(value, int) else f'{key} = "{_escaped(value)}"')
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def default_file() -> Path:
    """Return the path of default.toml: beside this module in an installed package, in node_config/ in a checkout."""
    installed = Path(__file__).with_name("default.toml")
    return installed if installed.is_file() else Path(__file__).parents[2] / "node_config" / "default.toml"


def _defaults() -> dict[tuple[str, str], tuple[Any, str]]:
    """Return (value, where it stands) of every setting. Raises InvariantBroken when the file and SETTINGS disagree."""
    file = default_file()
    try:
        values = _read_settings(file, file.read_text(encoding="utf-8"))
    except OSError:
        raise InvariantBroken(f"the documented defaults {file} are missing: install medchain again") from None
    if set(values) != set(SETTINGS):
        raise InvariantBroken(f"the documented defaults {file} are not those of this version: install medchain again")
    return {key: (value, f"{key[1]} in section [{key[0]}] of {file}") for key, value in values.items()}


def _read(file: Path) -> str:
    try:
        if not file.is_file():
            raise Rejected("config.missing", f"{file} is not there: {file.parent} is no node's home; make one with `medchain node init`.")
        if file.stat().st_size > FILE_BYTES_MAX:
            raise Rejected("config.unreadable", f"{file} is larger than a configuration can be: restore it.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Rejected("config.unreadable", f"{file} cannot be read: {reason}.") from None


def _read_settings(file: Path, text: str) -> dict[tuple[str, str], Any]:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("config.unreadable", f"{file} is not TOML ({str(error)[:200]}): correct or restore it.") from None
    values = {}
    for section, keys in document.items():
        if not isinstance(keys, dict):
            raise Rejected("config.unknown-key", f"{file} sets {section!r} outside any section: every setting stands in a [section].")
        for key, value in keys.items():
            _known(section, key, str(file))
            values[section, key] = value
        if not keys and section not in {known for known, _ in SETTINGS}:
            raise Rejected("config.unknown-key", f"{file} has a section [{section}] that does not exist: remove or correct it.")
    return values


def _known(section: str, key: str, where: str) -> Setting:
    setting = SETTINGS.get((section, key))
    if setting is None:
        raise Rejected("config.unknown-key", f"{where} sets {key!r} in section [{section}], which does not exist: remove or correct it.")
    return setting


def _variable(key: tuple[str, str]) -> str:
    return f"{PREFIX}{key[0]}_{key[1]}".upper()


def _overrides(environment: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return the settings named by the environment. A variable that names none is a typing error nobody would notice, so it is refused."""
    known = {_variable(key): key for key, setting in SETTINGS.items() if setting.is_in_environment}
    found = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        if name not in known:
            raise Rejected("config.unknown-key", f"The variable {name} names no setting: unset or correct it.")
        found[known[name]] = text
    return found


def _from_text(setting: Setting, text: str) -> Any:
    if setting.kind == NUMBER and text.isascii() and text.replace("_", "").isdigit() and len(text) <= 30:
        return int(text.replace("_", ""))
    return text


def _checked(setting: Setting, value: Any, where: str) -> Any:
    """Return the value as the program uses it. Raises Rejected config.bad-value."""
    match setting.kind:
        case "number":
            if type(value) is int and setting.low <= value <= setting.high:
                return value
            wanted = f"a whole number from {setting.low} to {setting.high}"
        case "choice":
            if value in setting.choices:
                return value
            wanted = "one of " + ", ".join(setting.choices)
        case "address":
            try:
                return parse_address(value)
            except Malformed:
                wanted = 'an address such as "127.0.0.1:7100"'
        case "addresses":
            try:
                return _parse_addresses(value)
            except Malformed:
                wanted = 'addresses by hospital, such as "north = 10.0.0.2:7200, south = 10.0.0.3:7200"'
        case _:
            if isinstance(value, str) and "\0" not in value:
                return value
            wanted = "a path as text"
    raise Rejected("config.bad-value", f"{where[0].upper()}{where[1:]} must be {wanted}.")


def _parse_addresses(value: Any) -> dict[str, str]:
    """Return name → `host:port` of `NAME = host:port, ...`. Raises Malformed."""
    rows = value.split(",") if isinstance(value, str) and value.strip() else []
    if not isinstance(value, str) or len(rows) > ADDRESSES_MAX:
        raise Malformed("addresses are text")
    found: dict[str, str] = {}
    for row in rows:
        name, _, address = (part.strip() for part in row.rpartition("="))
        parse_address(address)
        if not name or name in found:
            raise Malformed("each hospital is named once")
        found[name] = address
    return found


def parse_address(value: Any) -> tuple[str, int]:
    """Return (host, port) of `host:port`; an IPv6 host stands in brackets. Raises Malformed."""
    host, _, port = value.rpartition(":") if isinstance(value, str) and len(value) <= 300 else ("", "", "")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or any(character.isspace() for character in host) or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise Malformed("an address is written host:port")
    if int(port) > 65_535:
        raise Malformed("a port is at most 65535")
    return host, int(port)
