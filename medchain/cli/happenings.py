"""What happened, in a line: the events of trails and histories as people read them. Ids are cut short; hospitals go by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medchain.cli import words


@dataclass(frozen=True, slots=True)
class Namer:
    """Knows the hospitals' names."""

    hospitals: Mapping[bytes, str]
    """Organisation key → name."""

    def of(self, value: Any) -> str:
        """Return a value of an event's field as people read it; bytes may come as hexadecimal text."""
        if isinstance(value, str) and words.is_identity(value):
            value = bytes.fromhex(value)
        if isinstance(value, bytes):
            return self.hospitals.get(value) or f"{value.hex()[:12]}…"
        if isinstance(value, list | tuple):
            return ", ".join(self.of(item) for item in value)
        return str(value)


_SENTENCES = {
    "people.register_patient": "at hospital {hospital}",
    "epochs.interim": "epoch {number} of {category} opened by {hospital} alone",
    "records.register": "{kind} of category {category}, version {version}, by {hospital}",
    "records.amend": "version {version}, by {hospital}",
    "records.confirm_custody": "hospital {hospital} holds version {version}",
    "consents.grant": "{purpose} of {category} to {grantee_kind} {grantee}",
    "consents.revoke": "consent {consent}",
    "access.permit": "{clinician} of {hospital} for {purpose}",
    "access.denial": "{clinician} of {hospital} for {purpose}: {code}",
    "access.release": "hospital {hospital} released the key of version {version} to {reader}",
    "access.receipt": "{clinician} opened version {version}",
    "access.emergency": "{clinician} of {hospital}: {reason}",
    "access.review": "{hospital} judged it {outcome}",
    "access.review_overdue": "the review of {clinician}'s emergency is late",
    "access.read_trail": "by {reader}",
    "evidence.recorded": "{hospital} contradicted itself at height {height} ({offence})",
}


def summary_of(kind: str, fields: Mapping[str, Any], namer: Namer) -> str:
    """Return one line about an event; of a kind that is not known here, its fields as they are."""
    sentence = _SENTENCES.get(kind)
    named = {name: namer.of(value) for name, value in fields.items()}
    if sentence is None:
        return ", ".join(f"{name} {value}" for name, value in named.items())
    try:
        return sentence.format_map(named)
    except KeyError:
        return ", ".join(f"{name} {value}" for name, value in named.items())


def line_of(row: Mapping[str, Any]) -> str:
    """Return the line of an event for people: when, in which block, what."""
    return f"{words.moment_text(row['time_ms'])}  block {row['height']:>6}  {row['kind']:<24} {row['summary']}"
