"""What broke in other systems and concerns a node with its files and its custodian: a scenario a failure (list: tests/LESSONS.md)."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from medchain.chain.genesis import Genesis
from medchain.chain.parameters import Parameters
from medchain.crypto.sealing import unwrap_key
from medchain.errors import Malformed, Rejected
from medchain.node import config
from medchain.node.config import SETTINGS, NodeConfig
from medchain.sim.faults import quiet_plan
from medchain.testnet.plan import load_plan, new_plan, write_network
from medchain.wire.custody import Release
from tests.node.custody_world import Sealed, asked, identity, making, open_by, refusal

# ---- settings ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    plan = new_plan(tmp_path_factory.mktemp("lessons") / "net", 4, 0)
    write_network(plan, Parameters(state_buckets=64))
    return plan.folder


def test_a_test_setting_is_silently_ignored_cometbft_clock_skew(network: Path) -> None:
    """A name that nobody knows, put into every kind of manifest there is: each refuses it by its name or its list of names."""
    settings = network / "a" / "node.toml"
    before = settings.read_text()
    for text, place in ((before + "\n[clock]\nclock_skew = 5\n", "clock"), (before + "clock_skew = 5\n", "clock_skew")):
        settings.write_text(text)
        with pytest.raises(Rejected) as refused:
            NodeConfig.load(network / "a", {})
        assert refused.value.code == "config.unknown-key" and place in refused.value.message
    settings.write_text(before)
    with pytest.raises(Rejected, match="CLOCK_SKEW"):
        NodeConfig.load(network / "a", {"MEDCHAIN_PEERS_CLOCK_SKEW": "5"})

    manifest = network / "testnet.json"
    document = json.loads(manifest.read_text())
    odd_seat = {**document, "hospitals": [{**document["hospitals"][0], "clock_skew": 5}, *document["hospitals"][1:]]}
    for odd in ({**document, "clock_skew": 5}, odd_seat):
        manifest.write_text(json.dumps(odd))
        with pytest.raises(Malformed, match="clock_skew"):
            load_plan(network)
    manifest.write_text(json.dumps(document))
    assert len(load_plan(network).seats) == 4

    genesis = json.loads((network / "genesis.json").read_text())
    for odd in (
        {**genesis, "clock_skew": 5},
        {**genesis, "parameters": {**genesis["parameters"], "clock_skew": 5}},
        {**genesis, "hospitals": [{**genesis["hospitals"][0], "clock_skew": 5}, *genesis["hospitals"][1:]]},
    ):
        with pytest.raises(Malformed):
            Genesis.from_json(json.dumps(odd))
    with pytest.raises(TypeError, match="clock_skew"):
        quiet_plan(1, clock_skew=5)


def test_no_local_setting_is_a_rule_of_consensus_fisco_bcos_4656() -> None:
    """What all must do alike stands in the genesis document alone: no setting of one node has the name of a consensus parameter."""
    rules = {field.name for field in fields(Parameters)}
    assert len(rules) > 10
    names = {name for section, key in SETTINGS for name in (key, f"{section}_{key}")}
    assert not rules & names
    assert not [rule for rule in rules if rule in config.default_file().read_text()]


# ---- keys -------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_one_epoch_key_to_a_reader_opens_everything_of_that_patient(tmp_path, monkeypatch) -> None:
    """Two records of one patient under one epoch, a permit for one: nothing the reader gets opens the other, whoever's release it sees."""
    async with making(tmp_path, monkeypatch) as world:
        mine, other = Sealed(world), Sealed(world, "other")
        await mine.put()
        await other.put()
        await world.grant()
        permit = await world.ask(mine.record)
        answer = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, answer, permit, mine) == mine.plaintext
        for record in (mine, other):
            row = await world.a.query("records.get", record=record.record)
            assert row["versions"][0]["epoch"] == 1
        epoch = world.a.wraps.epoch_key(world.pseudonym, "general", 1)
        release = Release.decode(answer)
        permit_key = world.lee.opening.open(release.sealed_permit_key, info=release.info.encode())
        learned = (answer, permit_key, unwrap_key(permit_key, release.wrapped_data_key))
        assert not [secret for secret in (epoch.key, other.key) if any(secret in item for item in learned)]

        kim = identity("clinician", "kim too")  # of the same hospital: the patient's consent covers her
        await world.credential(kim, world.b)
        hers = await world.ask(other.record, kim)
        seen = await world.b.custodian.release(asked(world, hers, kim))
        assert await open_by(world, kim, seen, hers, other) == other.plaintext
        for key in (permit_key, learned[2], mine.key):
            with pytest.raises(Malformed):
                unwrap_key(key, Release.decode(seen).wrapped_data_key)
        with pytest.raises((Malformed, Rejected)):
            await open_by(world, world.lee, seen, hers, other)
        assert await refusal(world.b.custodian.release(asked(world, hers, world.lee)))
