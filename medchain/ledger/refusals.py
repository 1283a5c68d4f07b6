"""Every code with which the rule book says no, and what it means in one line.

A *refusal* (the transaction touched nothing) may carry any code of `REFUSALS`. A *denial* (the accepted, recorded answer to a clinician's
request) carries one of `DENIALS`; the same codes are refusals where a hospital announces the release of a key that may no longer go out.
"""

from __future__ import annotations

from typing import Final

REFUSALS: Final[dict[str, str]] = {
    "operation.unknown": "The operation kind is not one of this protocol version.",
    "operation.malformed": "The operation's payload is not what its kind asks for.",
    "hospital.unknown": "The signer is not a member hospital.",
    "people.key-in-use": "The key already belongs to a hospital, a clinician or a patient; make a fresh one.",
    "people.other-hospital": "The clinician's key was credentialed by another hospital; make a fresh key for this one.",
    "people.expiry-past": "The credential would already be past its end.",
    "people.credential-proof-invalid": "The clinician's key did not sign for this hospital and this opening key.",
    "people.clinician-unknown": "No hospital has credentialed this clinician's key.",
    "people.credential-ended": "The clinician's credential is already revoked.",
    "people.patient-known": "The patient's key is already registered.",
    "people.patient-unknown": "No patient is registered under this pseudonym or key.",
    "people.pseudonym-in-use": "A record already stands under this pseudonym's digest; register with a fresh patient key.",
    "people.proof-invalid": "The patient's key did not sign this registration.",
    "epochs.not-custodian": "Only the hospital that registered the patient opens epochs for the patient.",
    "epochs.number": "The epoch's number must be one more than the last one of this patient and category.",
    "records.not-custodian": "Only the custodian registers and amends a patient's records.",
    "records.unknown": "No record is registered under this id.",
    "records.id-taken": "The record id is in use; choose another at random.",
    "records.author": "The author is neither the custodian nor a clinician with a valid credential from it.",
    "records.epoch-unknown": "The custodian has not opened this epoch for the patient and category.",
    "records.epoch-too-old": "The epoch is older than the patient's last revocation; open a new one and seal again.",
    "records.version": "An amendment must carry the version after the newest one.",
    "records.version-unknown": "The record has no such version.",
    "records.custody-confirmed": "This hospital has already confirmed custody of this version.",
    "consents.grantee-unknown": "The grantee is neither a member hospital nor a credentialed clinician.",
    "consents.period": "The consent would be over before it can be used.",
    "consents.too-many": "Too many consents to this grantee are in force; revoke one first.",
    "consents.unknown": "No consent is known under this id.",
    "consents.not-yours": "Only the patient who granted a consent may revoke it.",
    "consents.revoked": "The consent is already revoked.",
    "access.permit-unknown": "No permit is known under this id.",
    "access.permit-version": "The permit does not name this version of the record.",
    "access.permit-ended": "The permit was ended by a review.",
    "access.permit-expired": "The permit is past its end; the reader has to ask again.",
    "access.releases-used-up": "The permit's releases are used up; the reader has to ask again.",
    "access.not-custodian": "Only the record's custodian releases its keys.",
    "access.not-reader": "Only the reader named in the permit may confirm reading.",
    "access.not-released": "No key for this version was released under this permit yet.",
    "access.read-twice": "Reading of this version under this permit is already confirmed.",
    "access.review-unknown": "No emergency awaits review under this id.",
    "access.not-reviewer": "Only the record's custodian reviews an emergency.",
    "access.reviewed": "The emergency has already been reviewed.",
    "access.subject-unknown": "No patient and no record is known under this id.",
    "access.not-entitled": "Only the patient and the custodian hospital may read this trail.",
    "evidence.future": "The evidence is about a height that is not being decided yet.",
    "evidence.too-old": "The evidence is about a height too far below the block's.",
    "evidence.stranger": "The evidence is about a key that is no hospital's.",
    "evidence.recorded": "Evidence of this offence by this validator is recorded for these heights already.",
    "credential.revoked": "The clinician's credential was revoked by the hospital that gave it.",
    "credential.expired": "The clinician's credential is past its end; the hospital has to give a new one.",
    "credential.role": "The role asked under is not the role of the clinician's credential.",
    "consent.revoked": "The patient revoked the consent that covered this.",
    "consent.ended": "The consent that covered this is past its end.",
    "consent.not-begun": "The consent that covers this has not begun yet.",
    "consent.purpose": "The patient's consent for this category is for another purpose.",
    "consent.category": "The patient's consent is for another category of records.",
    "consent.none": "The patient has given no consent to this clinician or the clinician's hospital.",
}

DENIALS: Final = (
    "credential.revoked",
    "credential.expired",
    "credential.role",
    "consent.revoked",
    "consent.ended",
    "consent.not-begun",
    "consent.purpose",
    "consent.category",
    "consent.none",
)
"""Codes of denials, in the order in which `verdicts.verdict` looks for them: the most specific answer wins."""
