"""On-chain parameters: defaults, bounds, one encoding."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from medchain import codec
from medchain.chain.parameters import BOUNDS, Parameters
from medchain.errors import Malformed

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "parameters.json").read_text())


def test_every_parameter_has_bounds_and_a_default_within_them() -> None:
    assert list(BOUNDS) == [field.name for field in fields(Parameters)]
    Parameters().check()


def test_defaults_are_those_of_the_protocol() -> None:
    """protocol.md, "Numbers"."""
    values = Parameters().as_names()
    del values["block_weight_max"]  # given there as 150 ms of execution
    assert values == {
        "block_interval_min_ms": 50, "heartbeat_ms": 30_000, "view_timeout_base_ms": 1_000, "view_timeout_cap_ms": 10_000,
        "clock_bound_ms": 5_000, "expiry_window_blocks": 10_000, "local_emergency_max_ms": 24 * 3_600_000, "local_emergency_count_max": 3,
        "rotation_window_blocks": 0, "block_bytes_max": 4 * 1024 * 1024, "block_transactions_max": 2_000, "state_buckets": 65_536,
    }  # fmt: skip


def at(name: str, value: Any) -> Parameters:
    """Defaults with one value, and its partner moved out of the way."""
    partner = {"view_timeout_base_ms": {"view_timeout_cap_ms": 3_600_000}, "view_timeout_cap_ms": {"view_timeout_base_ms": 50}}
    return replace(Parameters(), **{**partner.get(name, {}), name: value})


@pytest.mark.parametrize("name", BOUNDS)
def test_each_parameter_is_accepted_at_its_bounds_and_refused_beyond(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low, high):
        assert Parameters.decode(at(name, value).encode()) == at(name, value)
        assert Parameters.from_names(at(name, value).as_names()) == at(name, value)
    for value in (low - 1, high + 1, -1, 2**64 - 1):
        with pytest.raises(Malformed, match=name):
            at(name, value).check()
        with pytest.raises(Malformed, match=name):
            Parameters.decode(at(name, value).encode())
        with pytest.raises(Malformed, match=name):
            Parameters.from_names({name: value})


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [1.0, 100.0, True, "100", None, [100], float("nan"), b"\x64"])
def test_values_that_are_not_whole_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Malformed, match=name):
        Parameters.from_names({name: value})
    with pytest.raises(Malformed, match=name):
        at(name, value).check()


@pytest.mark.parametrize("buckets", [17, 65_535, 65_537, 3 * 2**10])
def test_a_number_of_buckets_that_is_no_power_of_two_is_refused(buckets: int) -> None:
    with pytest.raises(Malformed, match="power of two"):
        replace(Parameters(), state_buckets=buckets).check()


def test_a_cap_below_the_base_is_refused() -> None:
    replace(Parameters(), view_timeout_base_ms=1_000, view_timeout_cap_ms=1_000).check()
    with pytest.raises(Malformed, match="must not be below"):
        replace(Parameters(), view_timeout_base_ms=1_001, view_timeout_cap_ms=1_000).check()


def test_missing_names_take_their_default_and_unknown_ones_are_refused() -> None:
    """lessons.md: "A test setting is silently ignored"."""
    assert Parameters.from_names({"heartbeat_ms": 500}) == replace(Parameters(), heartbeat_ms=500)
    for names in ({"clock_skew": 1}, {"heartbeat": 500}, {"Heartbeat_ms": 500}, {"": 1}, {"version": 1}):
        with pytest.raises(Malformed, match="unknown parameter"):
            Parameters.from_names(names)


@pytest.mark.parametrize("values", [None, [], "heartbeat_ms", 5, [["heartbeat_ms", 500]]])
def test_parameters_that_are_no_object_are_refused(values: Any) -> None:
    with pytest.raises(Malformed, match="object"):
        Parameters.from_names(values)


def test_a_value_too_many_too_few_or_of_another_place_is_refused() -> None:
    values = codec.decode(Parameters().encode())
    for wrong in (values[:-1], [*values, 1], values[::-1], [], [values]):
        with pytest.raises(Malformed):
            Parameters.decode(codec.encode(wrong))


def test_window_of_the_rotation_is_twice_the_validators_unless_a_number_is_given() -> None:
    assert [Parameters().rotation_window(n) for n in (4, 7, 13)] == [8, 14, 26]
    assert replace(Parameters(), rotation_window_blocks=5).rotation_window(4) == 5


@pytest.mark.parametrize("vector", VECTORS["parameters"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_parameters_do_not_change(vector: dict[str, Any]) -> None:
    parameters = Parameters.from_names(vector["values"])
    assert list(parameters.as_names()) == list(vector["values"])
    assert parameters.encode().hex() == vector["encoded"]
    assert Parameters.decode(bytes.fromhex(vector["encoded"])) == parameters


def test_the_frozen_bounds_do_not_change() -> None:
    """A wider bound on one node accepts a change that others refuse: a protocol change."""
    assert {name: list(bounds) for name, bounds in BOUNDS.items()} == VECTORS["bounds"]
