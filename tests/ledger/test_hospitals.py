"""Hospitals: founded by the genesis document."""

from __future__ import annotations

import pytest

from medchain.errors import InvariantBroken
from medchain.ledger import hospitals, rows
from medchain.ledger.apply import genesis_changes, parameters_of, validators_of


def test_genesis_founds_parameters_validators_and_every_hospital(world):
    assert parameters_of(world.state) == world.genesis.parameters
    assert validators_of(world.state) == world.genesis.validators()
    for hospital in world.genesis.hospitals:
        row = hospitals.hospital_of(world.state, hospital.organisation_key)
        assert (row.name, row.role, row.consensus_key, row.officer_key) == (
            hospital.name, hospital.role, hospital.consensus_key, hospital.officer_key,
        )  # fmt: skip
        assert (row.opening_suite, row.opening_key, row.certificate) == (
            hospital.opening_suite, hospital.opening_key, hospital.certificate,
        )  # fmt: skip
        assert (row.endpoints, row.from_height) == (hospital.endpoints, 0)


def test_hospital_is_found_by_each_of_its_keys(world):
    for hospital in world.genesis.hospitals:
        for key in (hospital.consensus_key, hospital.officer_key, hospital.organisation_key):
            assert hospitals.organisation_of(world.state, key) == hospital.organisation_key
    assert hospitals.organisation_of(world.state, bytes(32)) is None


def test_only_the_organisation_key_acts_as_the_hospital(world):
    hospital = world.genesis.hospitals[0]
    assert hospitals.is_hospital(world.state, hospital.organisation_key)
    assert not hospitals.is_hospital(world.state, hospital.consensus_key)
    assert not hospitals.is_hospital(world.state, hospital.officer_key)


def test_founding_rows_stand_in_key_order(world):
    founded = genesis_changes(world.genesis)
    assert list(founded) == sorted(founded)
    assert len(founded) == 3 + 4 * 4
    assert rows.PARAMETERS in founded


def test_state_that_was_never_founded_is_a_broken_invariant(world):
    world.state.rows.clear()
    with pytest.raises(InvariantBroken):
        validators_of(world.state)
    with pytest.raises(InvariantBroken):
        parameters_of(world.state)
