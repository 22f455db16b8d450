"""What the ages of backups and the verdicts on them say in words."""

from datetime import timedelta

import pytest

from tasks.backup import Backup, Backups, Proof
from tests import stored
from tests.stored import NOON

# Ages in hours of backups and whether each is proven; what is wrong. An rpo of 26 h.
AGES: dict[str, tuple[list[tuple[float, str]], str]] = {
    "young and proven": ([(1, ""), (25, "proven")], ""),
    "too old": ([(27, "proven")], "the newest backup is 27.0 h old"),
    "none": ([], "there is no backup that can be used"),
    "the first, which has time to be proven": ([(25, "")], ""),
    "never proven": ([(3, ""), (27, "")], "no backup is proven"),
    "too old and never proven": ([(27, "")], "the newest backup is 27.0 h old and no backup is proven"),
    "proven until a day more than the rpo ago": ([(1, ""), (50, "proven")], ""),
    "proven before that": ([(1, ""), (51, "proven")], "the newest proven backup is 51.0 h old"),
    "bad of late": ([(1, "bad"), (27, "bad"), (51, "proven")], "the newest proven backup is 51.0 h old"),
    "young only before a restore": ([(1, "safety"), (27, "proven")], "the newest backup is 27.0 h old"),
    "proven only before a restore": ([(1, ""), (2, "safety, proven"), (27, "")], "no backup is proven"),
    "the first, beside what was saved before a restore": ([(1, ""), (99, "safety")], ""),
}


@pytest.mark.parametrize(("ages", "wrong"), AGES.values(), ids=AGES)
def test_backups_and_proofs_that_have_stopped_are_said_in_words(ages: list[tuple[float, str]], wrong: str) -> None:
    items = []
    for age, words in ages:
        kind = "safety" if "safety" in words else "daily"
        manifest = stored.manifest(f"of-{age}", snapshot_at=NOON - timedelta(hours=age), kind=kind)
        verdict = next((verdict for verdict in ("proven", "bad") if verdict in words), None)
        said = {"at": NOON, "restore_seconds": 1, "data_age_seconds": 1, "manifest_sha256": ""}
        proof = Proof.model_validate(said | {"verdict": verdict}) if verdict else None
        items.append(Backup(name=manifest.name, manifest=manifest, proof=proof))
    found = Backups(items=items, at=NOON, rpo=timedelta(hours=26))
    assert (found.problem, found.ok) == (wrong, not wrong)
    assert "guardia verify" in found.cure and ("guardia backup`" in found.cure) is bool(found.stale)


def test_a_proof_says_what_it_measured() -> None:
    said = {"at": NOON, "restore_seconds": 45.2, "data_age_seconds": 5400, "manifest_sha256": "ab", "tables": 31}
    proven = Proof.model_validate(said | {"verdict": "proven", "rows": 13_000_000, "invariants": {"a": 0}})
    assert proven.words == "31 tables, 13,000,000 rows exactly as when it was made; restored in 45 s, data 1.5 h old"
    own = proven.model_copy(update={"manifest_sha256": ""})
    assert own.words.startswith("31 tables, 13,000,000 rows as the file says, which has no manifest; ")
    bad = Proof.model_validate(said | {"verdict": "bad", "differences": ["x is missing"], "invariants": {"a": 2}})
    assert bad.words == "x is missing; a: 2 rows"
