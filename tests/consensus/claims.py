"""protocol.md, "Agreement", sentence by sentence, and the sources it stands on: which test holds each claim.

Besides tests, transcripts hold claims: those of scenarios/ here, and those of engine/scenarios. test_paper.py checks that everything named
here exists. Claims about the pool, the store or the rule book are held in those rooms; they are listed so that the list is whole.
"""

from __future__ import annotations

from typing import Final

PAPER: Final = "consensus/test_paper.py"
INSTANCE: Final = "consensus/test_instance.py"
REPLICA: Final = "consensus/test_replica.py"
PROMISES: Final = "consensus/test_promises.py"
CHANGES: Final = "consensus/test_view_changes.py"
JUSTIFIED: Final = "consensus/test_justification.py"
EVIDENCE: Final = "consensus/test_evidence.py"
NETWORK: Final = "consensus/test_network.py"
TIMERS: Final = "consensus/test_timers.py"
ENGINE: Final = "engine/test_engine.py"
PEERS: Final = "engine/test_peers.py"
RECOVERY: Final = "engine/test_recovery.py"
GOSSIP: Final = "engine/test_gossip.py"
ROTATION: Final = "ledger/test_rotation.py"
POOL: Final = "engine/test_mempool.py"

Held = tuple[tuple[str, str], ...]
"""(file below tests/, name of the test), or ("scenario" or "engine scenario", name of the transcript)."""

PROTOCOL: Final[dict[str, Held]] = {
    # ---- one instance per height, views within a height
    "each backup that executed the block and got the same roots prepares it": (
        (INSTANCE, "test_backup_prepares_only_after_the_block_was_executed"),
        (INSTANCE, "test_backup_does_not_prepare_a_block_that_gives_other_roots"),
        ("scenario", "proposal-is-invalid"),
    ),
    "what is missing of a proposal is asked for, the proposer first": (
        (PEERS, "test_a_proposed_transaction_that_a_backup_lacks_is_fetched"),
        (PEERS, "test_a_backup_that_holds_the_body_with_another_authentication_fetches_the_proposed_one"),
        ("engine scenario", "a-transaction"),
        ("engine scenario", "a-missing-transaction"),
    ),
    "q prepares = prepared, then a Commit": (
        (PAPER, "test_commit_is_multicast_when_prepared_becomes_true"),
        (PAPER, "test_prepares_of_different_views_do_not_add_up"),
        (PAPER, "test_the_same_prepare_from_one_validator_many_times_is_one"),
        ("scenario", "happy-path-four"),
        ("scenario", "happy-path-five"),
    ),
    "q commits = committed, certified": (
        (PAPER, "test_decision_needs_q_commits_of_one_view_and_digest"),
        (INSTANCE, "test_q_commits_decide_with_exactly_the_lowest_q_signatures"),
        ("chain/test_certificate.py", "test_every_q_voting_validators_certify"),
    ),
    "a pre-prepare is an unsigned envelope around an ordinary signed Prepare, which counts": (
        (PAPER, "test_primarys_pre_prepare_counts_as_its_prepare"),
        (PAPER, "test_prepare_in_an_unjustified_envelope_still_counts"),
    ),
    "votes and view changes are signed over fixed tuples": (
        ("chain/test_vote.py", "test_a_vote_signs_height_view_and_digest_as_a_fixed_tuple"),
        ("chain/test_vote.py", "test_the_signature_of_a_view_change_covers_every_field_but_the_proof"),
        ("chain/test_vote.py", "test_frozen_votes_do_not_change"),
    ),
    "the bytes of a view change, proof included, are frozen once durable": (
        (INSTANCE, "test_restarted_node_keeps_its_view_and_its_frozen_view_change"),
        (PAPER, "test_view_change_stays_as_it_was_whatever_is_learnt_later"),
    ),
    # ---- durable before said
    "before Prepare: header and all transaction bytes": (
        (PROMISES, "test_prepare_is_signed_after_proposal_and_vote_are_durable"),
        (ENGINE, "test_nothing_is_sent_before_the_turn_that_promises_it_is_written"),
        ("scenario", "restart-at-the-prepare"),
    ),
    "pinned and served until the height is decided, written once under its digest": (
        (PEERS, "test_a_pinned_block_is_served_until_its_height_is_decided"),
        ("engine/test_hardstate.py", "test_the_block_of_a_pin_is_written_once"),
    ),
    "before Commit: the prepared proof as well": (
        (PROMISES, "test_commit_is_signed_after_its_prepared_proof_is_durable"),
        ("scenario", "restart-at-the-commit"),
    ),
    "a batch that is not empty is always synced; a failed write ends the process": (
        ("node/test_runtime.py", "test_batch_is_taken_over_by_the_loop_and_written_in_another_thread_before_anything_is_sent_or_answered"),
        ("node/test_runtime.py", "test_failed_write_ends_the_loop_before_anything_is_said"),
    ),
    # ---- view change
    "the new primary needs q view changes whose highest prepared block it has or can fetch": (
        (INSTANCE, "test_new_primary_fetches_and_executes_a_block_it_lacks_before_it_proposes_it"),
        ("scenario", "fetched-proven-block"),
        ("engine scenario", "prepared-block-fetched"),
        ("scenario", "unobtainable-proven-block"),
    ),
    "with n-f honest nodes one such set exists": ((PAPER, "test_view_changes_of_the_honest_alone_are_always_a_choice"),),
    "it re-proposes that block byte for byte": (
        (INSTANCE, "test_new_primary_proposes_the_highest_prepared_block_byte_for_byte"),
        (PAPER, "test_new_primary_picks_the_pre_prepare_of_the_highest_view"),
        ("scenario", "prepared-block-reproposed"),
        ("scenario", "two-candidates"),
        ("scenario", "committed-at-one-only"),
    ),
    "exempt from the clock bound": (
        (JUSTIFIED, "test_reproposal_is_exempt_from_the_clock_bound"),
        (JUSTIFIED, "test_fresh_block_must_be_within_the_clock_bound"),
        ("scenario", "stall-of-ten-minutes"),
        ("scenario", "clock-of-the-primary-is-off"),
        ("scenario", "clock-within-the-bound"),
    ),
    "it carries exactly those q for exactly v, with the highest one's proof": (
        (CHANGES, "test_highest_prepared_view_decides_and_alone_carries_its_proof"),
        (JUSTIFIED, "test_unjustified_pre_prepare_is_refused_with_its_reason"),
        ("scenario", "claims-without-proof"),
    ),
    "if none of them prepared, it proposes afresh at once, empty if need be": (
        (INSTANCE, "test_new_primary_proposes_afresh_at_once_when_nobody_prepared"),
        ("scenario", "nobody-prepared"),
    ),
    "a pre-prepare with v > 0 without them is Misbehaviour": (
        (REPLICA, "test_sender_of_an_unjustified_pre_prepare_can_be_blamed"),
        ("scenario", "unjustified-proposals"),
    ),
    "once a view change to v' is durable, no Prepare or Commit below v' is signed": (
        (PROMISES, "test_nothing_is_signed_twice_or_below_an_own_view_change"),
        (INSTANCE, "test_nothing_is_signed_in_a_view_that_was_left"),
        ("scenario", "late-votes"),
        ("scenario", "restart-at-the-view-change"),
    ),
    "a certificate of any view is accepted": (
        (INSTANCE, "test_certificate_of_any_view_is_accepted"),
        ("scenario", "certificate-of-another-view"),
        ("scenario", "certificate-of-a-higher-view"),
        ("scenario", "late-commits-decide"),
    ),
    "a validator that learns a certificate before committing signs its Commit, unless its view change is above": (
        (INSTANCE, "test_slow_validator_signs_a_late_commit_with_the_certificate"),
        (INSTANCE, "test_late_commit_is_not_signed_below_an_own_view_change"),
        ("scenario", "late-commit-signed"),
        ("scenario", "late-commit-not-signed"),
        ("scenario", "late-commit-with-the-block"),
    ),
    # ---- view synchronisation
    "only the newest view change of each validator is kept and resent": (
        (CHANGES, "test_only_the_newest_view_change_of_a_validator_is_kept"),
        (REPLICA, "test_own_messages_are_the_newest_of_each_sort"),
    ),
    "for following and for timers one for w counts for every v <= w": (
        (CHANGES, "test_view_change_for_w_supports_every_view_up_to_w"),
        (PAPER, "test_view_followed_is_the_highest_with_support_of_one_honest_validator"),
    ),
    "a node moves to the highest view that f+1 support": (
        (PAPER, "test_validator_joins_a_view_that_f_plus_one_want_before_its_own_timer_ends"),
        ("scenario", "following-one-honest"),
        ("scenario", "following-the-highest"),
    ),
    "the timer of v > 0 runs once q support v": (
        (PAPER, "test_timer_of_a_new_view_starts_when_a_quorum_wants_it"),
        (INSTANCE, "test_timer_of_a_later_view_runs_only_once_q_support_it"),
        ("scenario", "dead-primaries-in-a-row"),
        ("scenario", "view-change-in-a-view-change"),
    ),
    "a lost quorum grows nothing": (
        (NETWORK, "test_quorum_lost_for_ten_minutes_and_restored_decides_within_ten_seconds"),
        ("scenario", "quorum-lost-and-found"),
    ),
    "a huge number does nothing": (
        (CHANGES, "test_one_huge_view_moves_nobody"),
        (PAPER, "test_faulty_validators_alone_cannot_force_a_view_change"),
        ("scenario", "huge-view-number"),
    ),
    "dropped messages wedge nothing": (
        (INSTANCE, "test_views_two_one_zero_and_a_lost_message_wedge_nobody"),
        ("scenario", "views-two-one-zero"),
    ),
    # ---- timers
    "base * 1.5^v up to the cap, then one base more per view without end": (
        (TIMERS, "test_lengths_grow_by_half_up_to_the_cap_and_by_one_base_beyond_it"),
        (TIMERS, "test_later_views_last_longer_without_end"),
    ),
    "in view 0 every validator's timer, the primary's too, runs for a proposal, a view change, a heartbeat or work": (
        (INSTANCE, "test_timer_of_view_zero_ends_in_a_view_change"),
        (INSTANCE, "test_primary_that_does_not_propose_replaces_itself"),
        (INSTANCE, "test_idle_network_changes_no_view"),
        ("scenario", "dead-primary"),
        ("scenario", "heartbeat"),
        ("scenario", "idle"),
        ("scenario", "proposal-cannot-be-completed"),
    ),
    "over a transaction it is first handed to the connected primary, with one base more, once": (
        (INSTANCE, "test_transactions_are_handed_to_a_connected_primary_before_it_is_replaced"),
        (PAPER, "test_transactions_are_handed_over_once_a_height"),
        (GOSSIP, "test_handing_over_repeats_what_was_sent_but_never_shown"),
    ),
    "a primary that ignores transactions is replaced, one that never saw them is not": (
        ("scenario", "primary-ignores-transactions"),
        ("scenario", "primary-never-saw-a-transaction"),
    ),
    # ---- primary
    "a locally held certificate is never consulted": (
        ("engine/test_late.py", "test_all_nodes_name_the_same_rotation_at_the_same_height_whatever_certificates_they_hold"),
    ),
    "each distinct primary of (g, 0..w-1) except g's proposer skips; the formula of skips and bars": (
        (ROTATION, "test_each_primary_of_a_view_that_passed_is_punished_once_and_the_proposer_of_the_block_is_not"),
        (ROTATION, "test_bars_double_eight_times_and_no_more_and_old_skips_are_forgotten"),
        (ROTATION, "test_primary_that_signs_but_never_proposes_is_barred_ever_longer"),
        (ROTATION, "test_a_huge_view_punishes_everybody_once_and_at_once"),
    ),
    "R(h): key order, less at most n-q: the unsigned for K heights, then the barred, ties by key": (
        (ROTATION, "test_however_many_are_silent_only_the_spare_ones_are_left_out_the_longest_silent_first"),
        (ROTATION, "test_of_the_barred_the_one_barred_longest_goes_first_and_ties_go_by_key"),
        (ROTATION, "test_random_chains_lead_to_the_rotation_that_the_words_of_the_protocol_give"),
        (ROTATION, "test_frozen_rotations_and_rows_do_not_change"),
    ),
    "newest height signed counts carried certificates and late commits": (
        (ROTATION, "test_signed_is_whatever_certificate_or_late_commit_a_block_carried"),
        ("engine/test_late.py", "test_validator_whose_commits_always_come_after_the_decision_counts_as_alive"),
        ("engine/test_late.py", "test_late_commit_of_any_recent_height_and_view_is_accepted_and_counts"),
    ),
    "those unsigned for K heights lead no more": (
        (ROTATION, "test_validator_that_signed_nothing_for_k_heights_is_left_out_and_not_a_height_sooner"),
        ("engine/test_late.py", "test_dead_validator_leaves_the_rotation_and_then_no_view_changes_any_more"),
    ),
    "primary(h, v) = R[(h+v) mod |R|]": (
        ("consensus/test_rotation.py", "test_every_validator_leads_once_in_n_views_of_a_height"),
        ("scenario", "rotation-without-the-dead"),
    ),
    # ---- resending
    "own messages of the undecided height every second": (
        (REPLICA, "test_own_messages_of_the_undecided_height_are_sent_again_every_second"),
        (REPLICA, "test_first_repetitions_come_before_the_shortest_timer_ends_so_that_a_lost_message_costs_no_view"),
        ("scenario", "lost-messages-come-again"),
    ),
    "who has decided answers any message of that height with block and certificate": (
        (PEERS, "test_a_decided_height_is_answered_with_its_block"),
    ),
    "pools exchange ids of entries older than a second": (
        (GOSSIP, "test_older_entries_are_listed_each_second_to_those_that_have_not_shown_them"),
    ),
    # ---- amnesia
    "no vote after a start before others were asked what they hold": (
        (RECOVERY, "test_no_vote_before_the_check_is_passed"),
        ("engine scenario", "amnesia-intact"),
    ),
    "after catching up to the highest certified height shown": (
        (RECOVERY, "test_it_catches_up_to_the_highest_certified_height_shown_before_it_votes"),
        ("engine scenario", "catching-up"),
    ),
    "nodes answer before their own check is done": ((RECOVERY, "test_nodes_answer_before_their_own_check_is_done"),),
    "an empty or damaged store needs q others": (
        (RECOVERY, "test_a_wiped_store_needs_a_quorum_of_others_also_after_another_restart"),
        ("engine scenario", "amnesia-wiped"),
        (RECOVERY, "test_a_store_that_the_world_found_damaged_needs_a_quorum_of_others"),
    ),
    "votes at or below the own decided height are ignored": (
        (RECOVERY, "test_votes_of_decided_heights_shown_by_a_liar_are_ignored"),
        (REPLICA, "test_own_votes_of_decided_heights_are_ignored"),
    ),
    "a vote the store lacks makes it observer up to and including m+2, marked durably": (
        (RECOVERY, "test_a_forgotten_vote_makes_an_observer_up_to_and_including_m_plus_2"),
        ("engine scenario", "amnesia-restored"),
        ("scenario", "amnesia-observer"),
        ("scenario", "amnesia-harmless"),
    ),
    "an empty store is new if m = 0 and no vote is shown": ((RECOVERY, "test_a_wiped_store_of_a_new_network_is_simply_new"),),
    "a torn end of the log is not damage; checksum errors elsewhere are": (
        ("store/test_leveldb.py", "test_log_cut_at_any_byte_opens_by_itself_with_whole_batches"),
        ("store/test_leveldb.py", "test_bad_byte_before_the_last_batch_is_damage_and_nothing_is_altered"),
    ),
    "a node that sees an own vote it never sent stops voting and alarms": (
        (REPLICA, "test_own_vote_that_was_never_sent_stops_voting_with_an_alarm"),
        (ENGINE, "test_an_alarm_is_raised_when_a_second_holder_of_the_key_votes"),
        ("scenario", "amnesia-unknown-own-vote"),
    ),
    # ---- lanes, evidence, time
    "urgent entries first, the rest in turns by hospital, at most the block's weight": (
        (POOL, "test_urgent_entries_come_first_and_hospitals_take_turns"),
        ("engine/test_executor.py", "test_a_block_of_too_much_work_is_refused"),
    ),
    "evidence: same kind, height and view with other signed content": (
        (EVIDENCE, "test_two_votes_of_one_kind_and_view_are_evidence_once"),
        (EVIDENCE, "test_two_view_changes_for_one_view_with_other_content_are_evidence"),
        ("scenario", "equivocating-primary"),
    ),
    "evidence: a view change to w showing p with a Commit of c, p < c < w": (
        (EVIDENCE, "test_view_change_that_hides_a_commit_is_evidence_whichever_comes_first"),
        ("scenario", "view-change-lie"),
    ),
    "evidence is stored, gossiped, put on chain, reported; the offender is proposed for suspension": (
        ("engine/test_evidence.py", "test_evidence_that_one_node_found_is_recorded_everywhere_within_seconds_of_an_idle_network"),
        ("engine/test_evidence.py", "test_pending_evidence_survives_a_restart_and_is_told_to_who_connects"),
        ("engine scenario", "a-contradiction"),
        ("ledger/test_evidence.py", "test_recorded_evidence_is_a_row_an_event_and_a_proposal_to_suspend"),
    ),
    "anything looser convicts honest validators": (
        (EVIDENCE, "test_evidence_rule_convicts_no_honest_validator_at_a_normal_view_change"),
        ("scenario", "equivocation-look-alikes"),
        ("scenario", "view-change-look-alikes"),
    ),
}

SOURCES: Final[dict[str, Held]] = {
    "C&L 4.1, the client's f+1 equal replies: replaced by a certificate anyone checks": (
        ("chain/test_certificate.py", "test_one_forged_signature_spoils_the_certificate"),
        ("wire/test_proof.py", "test_changing_any_byte_makes_a_proof_fail"),
    ),
    "C&L 4.2, what a backup accepts": (
        (PAPER, "test_pre_prepare_is_accepted_only_if_no_other_was_accepted_in_the_same_view"),
        (PAPER, "test_pre_prepare_of_another_view_is_not_accepted"),
        (PAPER, "test_pre_prepare_of_a_far_height_is_not_kept"),
        (INSTANCE, "test_pre_prepare_by_another_than_the_primary_is_not_accepted"),
    ),
    "C&L 4.2, three phases and no more": ((PAPER, "test_three_round_trips_and_no_more_in_the_normal_case"),),
    "C&L 4.3, the log is emptied at a stable checkpoint: at each decision here": (
        (PAPER, "test_votes_of_a_decided_height_are_forgotten_with_the_next"),
    ),
    "C&L 4.4, view change, new view, and the backup's own computation": (
        (PAPER, "test_view_change_carries_what_was_prepared"),
        (PAPER, "test_validator_that_changed_views_stops_accepting_messages_of_the_old_view"),
        (PAPER, "test_backup_verifies_the_new_primarys_choice_by_making_it_again"),
        (PAPER, "test_new_primary_proposes_once_in_a_view"),
    ),
    "C&L 4.5.1, safety within and across views": (
        (PAPER, "test_any_two_quorums_share_an_honest_validator"),
        (PAPER, "test_what_was_committed_is_what_every_possible_quorum_of_view_changes_obliges_to"),
    ),
    "C&L 4.5.2, liveness": (
        (PAPER, "test_the_honest_alone_reach_a_quorum"),
        (NETWORK, "test_heights_keep_growing_with_every_set_of_f_validators_down"),
    ),
    "C&L 4.6 and thesis 2.3.5, no promise is forgotten over a restart": (
        (PROMISES, "test_restart_restores_every_promise"),
        (INSTANCE, "test_restarted_backup_prepares_no_other_block_in_the_same_view"),
        ("scenario", "old-primary-restarted"),
        ("scenario", "new-primary-restarted"),
    ),
    "QBFT, justification of a proposal after a round change": (
        (JUSTIFIED, "test_highest_prepared_block_with_q_view_changes_is_justified"),
        (JUSTIFIED, "test_fresh_block_is_justified_when_nobody_prepared"),
    ),
    "QBFT, a new round begins without an accepted proposal": (
        (PAPER, "test_block_accepted_in_an_old_view_is_not_voted_for_in_a_new_one_unproposed"),
    ),
    "QBFT, messages of the next height wait": (
        ("consensus/test_early.py", "test_next_height_goes_on_at_once_with_what_came_early"),
        ("scenario", "two-heights"),
    ),
}
