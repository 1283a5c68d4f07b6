"""Settings: defaults that are documented, a node's own file, the environment; nothing unknown, nothing out of bounds."""

from __future__ import annotations

import tomllib

import pytest

from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.node import config
from medchain.node.config import SETTINGS, NodeConfig, parse_address, render


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        (tmp_path / "node.toml").write_text(text)
        return tmp_path

    return write


def refusal(home, environment=None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        NodeConfig.load(home, environment or {})
    assert caught.value.message[0].isupper() or caught.value.message[0] == "/"
    return caught.value


def test_empty_file_gives_the_documented_defaults(write):
    settings = NodeConfig.load(write(""), {})
    assert settings.rpc_listen == ("127.0.0.1", 7100)
    assert settings.rpc_url == "http://127.0.0.1:7100"
    assert settings.debug_record_traffic_directory is None


def test_every_setting_is_documented_in_the_defaults_and_named_in_the_class():
    text = config.default_file().read_text()
    documented = {(section, key) for section, keys in tomllib.loads(text).items() for key in keys}
    assert documented == set(SETTINGS)
    assert {f"{section}_{key}" for section, key in SETTINGS} | {"home"} == set(NodeConfig.__slots__)
    lines = text.splitlines()
    section = ""
    commented = False
    for line in lines:
        if line.startswith("["):
            section, commented = line, False
        elif line.startswith("#"):
            commented = True
        elif "=" in line:
            assert commented, f"{line} in {section} has no comment above it"


def test_own_file_and_then_environment_go_before_the_defaults(write):
    home = write('[rpc]\nlisten = "127.0.0.1:1"\n[runtime]\ntick_ms = 7\n')
    settings = NodeConfig.load(home, {"MEDCHAIN_RPC_LISTEN": "[::1]:2", "MEDCHAIN_VAULT_BYTES_MAX": "5_000", "HOME": "/x"})
    assert settings.rpc_listen == ("::1", 2)
    assert settings.rpc_url == "http://[::1]:2"
    assert settings.runtime_tick_ms == 7
    assert settings.vault_bytes_max == 5_000


def test_recording_folder_is_relative_to_the_home(write):
    home = write('[debug]\nrecord_traffic_directory = "traffic"\n')
    assert NodeConfig.load(home, {}).debug_record_traffic_directory == home / "traffic"


def test_folder_without_configuration_is_refused(tmp_path):
    error = refusal(tmp_path)
    assert error.code == "config.missing"
    assert "node init" in error.message


@pytest.mark.parametrize("content", [b"[rpc", b"\xff\xfe", b"x" * 70_000, b"a = " + b"[" * 5_000])
def test_damaged_configuration_is_refused(tmp_path, content):
    (tmp_path / "node.toml").write_bytes(content)
    assert refusal(tmp_path).code == "config.unreadable"


@pytest.mark.parametrize("text", ["[rpc]\nlistn = 1\n", "[prc]\nlisten = 1\n", "listen = 1\n", "[nothing]\n"])
def test_unknown_key_is_refused_by_name(write, text):
    assert refusal(write(text)).code == "config.unknown-key"


def test_unknown_variable_is_refused_by_name_but_variables_of_commands_are_not(write):
    home = write("")
    error = refusal(home, {"MEDCHAIN_RPC_LISTN": "127.0.0.1:1"})
    assert error.code == "config.unknown-key"
    assert "MEDCHAIN_RPC_LISTN" in error.message
    assert NodeConfig.load(home, dict.fromkeys(config.OTHER_VARIABLES, "anything"))


@pytest.mark.parametrize(
    "text",
    [
        "[rpc]\nlisten = 7100\n",
        '[rpc]\nlisten = "nowhere"\n',
        '[rpc]\nlisten = "127.0.0.1:70000"\n',
        '[rpc]\nlisten = "127.0.0.1:-1"\n',
        '[rpc]\nlisten = "a b:1"\n',
        '[rpc]\nlisten = "::1:1"\n',
        "[runtime]\ntick_ms = 0\n",
        "[runtime]\ntick_ms = 1.5\n",
        "[runtime]\ntick_ms = true\n",
        '[runtime]\ntick_ms = "20"\n',
        "[runtime]\ninbox_events_max = 99999999999999999999\n",
        '[log]\nlevel = "loud"\n',
        "[debug]\nrecord_traffic_directory = 5\n",
        "[debug]\nclock_offset_ms = 86_400_001\n",
        "[log]\nbytes_max = 1\n",
        "[peers]\ndial = 5\n",
        '[peers]\ndial = "b"\n',
        '[peers]\ndial = "b = nowhere"\n',
        '[peers]\ndial = "= 127.0.0.1:1"\n',
        '[peers]\ndial = "b = 127.0.0.1:1, b = 127.0.0.1:2"\n',
        '[peers]\ndial = "b = 127.0.0.1:1,"\n',
    ],
)
def test_value_of_wrong_type_or_out_of_bounds_is_refused(write, text):
    error = refusal(write(text))
    assert error.code == "config.bad-value"
    assert "node.toml" in error.message


def test_hospitals_may_be_dialled_elsewhere_by_name(write):
    settings = NodeConfig.load(write('[peers]\ndial = "north = 10.0.0.2:7200, a = b = [::1]:1"\n'), {})
    assert settings.peers_dial == {"north": "10.0.0.2:7200", "a = b": "[::1]:1"}
    assert NodeConfig.load(write(""), {}).peers_dial == {}


def test_drill_of_a_wrong_clock_stands_in_the_file_and_in_no_variable(write):
    assert NodeConfig.load(write("[debug]\nclock_offset_ms = -3_600_000\n"), {}).debug_clock_offset_ms == -3_600_000
    assert refusal(write(""), {"MEDCHAIN_DEBUG_CLOCK_OFFSET_MS": "1"}).code == "config.unknown-key"


def test_bad_value_of_a_variable_names_the_variable(write):
    error = refusal(write(""), {"MEDCHAIN_RUNTIME_TICK_MS": "soon"})
    assert error.code == "config.bad-value"
    assert "MEDCHAIN_RUNTIME_TICK_MS" in error.message


def test_rendered_settings_are_read_back(write):
    text = render({("rpc", "listen"): "127.0.0.1:7", ("log", "level"): "debug", ("debug", "record_traffic_directory"): 'a "b" \\c'})
    settings = NodeConfig.load(write(text), {})
    assert (settings.rpc_listen, settings.log_level) == (("127.0.0.1", 7), "debug")
    assert settings.debug_record_traffic_directory.name == 'a "b" \\c'


@pytest.mark.parametrize(
    ("values", "code"), [({("rpc", "listn"): "x"}, "config.unknown-key"), ({("rpc", "listen"): "x"}, "config.bad-value")]
)
def test_rendering_refuses_what_loading_would(values, code):
    with pytest.raises(Rejected) as caught:
        render(values)
    assert caught.value.code == code


def test_lost_defaults_are_our_fault_and_not_the_users(write, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "default_file", lambda: tmp_path / "absent.toml")
    with pytest.raises(InvariantBroken):
        NodeConfig.load(write(""), {})


@pytest.mark.parametrize("value", [None, 5, "", ":1", "host:", "host:x", "host:123456", "h" * 400 + ":1"])
def test_address_that_is_none_is_malformed(value):
    with pytest.raises(Malformed):
        parse_address(value)
