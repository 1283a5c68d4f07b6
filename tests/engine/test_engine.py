"""Whole engines together: deciding, restarting, catching up, and what peers and clients may do to them."""

from __future__ import annotations

from medchain.engine.ready import Accepted, BlockDecided


def test_four_engines_decide_a_transaction_and_agree_on_the_state(cluster):
    cluster.warm()
    transaction = cluster.credential()
    answer = cluster.submit(cluster.nodes[0], transaction)
    assert answer == Accepted(7, transaction.id, False)
    cluster.run_until(lambda: cluster.is_decided(transaction))
    cluster.check_agreement()
    decided = cluster.nodes[2].replies_of(BlockDecided)
    assert [receipt.transaction_id for receipt in decided[-1].receipts] == [transaction.id]
    assert decided[-1].receipts[0].is_accepted
    assert cluster.nodes[1].ask("tx.status", id=transaction.id)["status"] == "decided"
