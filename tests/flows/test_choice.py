"""The choice of how to get data back: what the form shows, and what needs no form."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from pydantic import ValidationError

from blocks.errors import BadBackup, ConfigError
from blocks.site import Site
from flows import choice
from flows.choice import Choice, Wanted, check, choose, last_proven
from flows.claims import Claim
from flows.incident import Incident
from tasks.assessing import OwnFiles
from tasks.backup import Backup, Backups, Proof
from tasks.damage import Damage
from tasks.differences import TableDamage
from tasks.own_dumps import OwnFile
from tests import stored

NOW = stored.NOON + timedelta(hours=2)
DAMAGE = Damage(
    live="d", beside="d_new", at=NOW, tenants={"3": "Azul"}, compared=18,
    tables=(TableDamage(table="public.sale", missing=7, changed=2, new=5, by_tenant={"3": (7, 2, 5)}),),
)  # fmt: skip


def backup(name: str, *, proven: bool) -> Backup:
    proof = Proof(verdict="proven", at=NOW, restore_seconds=45, data_age_seconds=1, manifest_sha256="")
    return Backup(name=name, manifest=stored.manifest(name), proof=proof if proven else None)


OWN = OwnFiles(items=[OwnFile(name="f.sql.gz", bytes=9, modified=NOW - timedelta(days=3))])
FOUND = Backups(items=[backup("new", proven=False), backup("old", proven=True)], at=NOW, rpo=timedelta(hours=26))


@pytest.fixture
def incident(site: Site) -> Incident:
    claim = Claim(run_id=uuid4(), playbook="x", section="X", severity="P1", site=site.name, opened=datetime.now(UTC))
    return Incident(claim, site)


def test_the_last_known_good_backup_is_the_newest_that_is_proven() -> None:
    assert last_proven(FOUND) == "old"


def test_without_a_proven_backup_the_cure_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Of 1 backups none is proven\. Prove one with `guardia verify BACKUP`"):
        last_proven(FOUND.model_copy(update={"items": FOUND.items[:1]}))


def test_the_form_shows_damage_and_what_each_backup_would_cost(incident: Incident) -> None:
    facts = "\n".join(choice._plan(incident, FOUND, OWN, "old", DAMAGE).facts)
    assert "against old: rows: 7 missing, 2 changed, 5 new; of Azul" in facts
    assert "backup new: NOT proven, 2 h before the stop; what it would lose is counted before you are asked" in facts
    assert "backup old: proven, RTO 45 s, 2 h before the stop; a whole restore loses 5 new and the live state of 2" in (
        facts
    )


def test_a_backup_that_failed_its_proof_is_bad_in_the_form_and_in_what_is_chosen(incident: Incident) -> None:
    proof = Proof(verdict="bad", at=NOW, restore_seconds=1, data_age_seconds=1, manifest_sha256="",
                  differences=["table public.sale: 3 rows, not 4"] * 5, invariants={"no sale is free": 3})  # fmt: skip
    found = FOUND.model_copy(update={"items": [FOUND.items[0].model_copy(update={"proof": proof})]})
    (fact,) = (fact for fact in choice._plan(incident, found, OWN, "old", DAMAGE).facts if "backup new" in fact)
    assert fact.startswith("backup new: BAD: table public.sale: 3 rows, not 4; table public.sale")
    assert " …, 2 h before the stop" in fact and len(fact) < 250
    assert check("new", found, OWN) == "new"
    chosen = choose(incident, found, "new", DAMAGE, Wanted(backup="new", how="whole restore"), own=OWN)
    assert chosen.bad.startswith("table public.sale: 3 rows, not 4") and chosen.bad.endswith(" …")
    assert choose(incident, FOUND, "new", DAMAGE, Wanted(backup="new", how="rescue"), own=OWN).bad == ""


def test_a_table_that_cannot_be_read_is_named_and_costs_nobody_knows_what(incident: Incident) -> None:
    table = TableDamage(table="public.move", unreadable="invalid page in block 0")
    found = DAMAGE.model_copy(update={"tables": (*DAMAGE.tables, table)})
    facts = choice._plan(incident, FOUND, OWN, "old", found).facts
    assert facts[-1] == (
        "public.move cannot be read (invalid page in block 0): its rows cannot be counted, and only a whole restore "
        "brings it back"
    )
    assert any(fact.endswith("of 2 changed rows, and of public.move what cannot be counted") for fact in facts)


def test_the_same_facts_make_the_same_plan_later(incident: Incident) -> None:
    later = FOUND.model_copy(update={"at": NOW + timedelta(hours=1)})
    plans = [choice._plan(incident, found, OWN, "old", DAMAGE).hash for found in (FOUND, later)]
    assert plans[0] == plans[1]


def test_what_was_said_at_the_start_is_not_asked(incident: Incident) -> None:
    wanted = Wanted(backup="new", how="rescue with changed rows", only="sale, Azul")
    chosen = choose(incident, FOUND, "new", DAMAGE, wanted, own=OWN)
    assert (chosen.how, chosen.backup, chosen.only, chosen.changed_rows) == ("rescue", "new", ["sale", "Azul"], True)


def test_a_form_without_a_decision_is_refused() -> None:
    with pytest.raises(ValidationError):
        Choice(decision="approve", approver="Ana", backup="old")


def test_a_file_of_the_sites_own_script_is_a_candidate_that_nothing_proves(incident: Incident) -> None:
    (fact,) = (fact for fact in choice._plan(incident, FOUND, OWN, "old", DAMAGE).facts if "own file" in fact)
    assert fact.startswith("own file f.sql.gz: NOT proven, rows per table only, 3 days before the stop; what it would")
    assert check("f.sql.gz", FOUND, OWN) == "f.sql.gz"


def test_a_backup_that_is_not_there_is_refused_and_those_that_are_there_are_named() -> None:
    with pytest.raises(ConfigError, match=r"There is no backup 'nope'\. There are: new, old\."):
        check("nope", FOUND, OWN)
    with pytest.raises(ConfigError, match=r"There are: f\.sql\.gz\."):
        check("nope.sql.gz", FOUND, OWN)


def test_a_damaged_backup_is_refused_by_name() -> None:
    found = FOUND.model_copy(update={"items": [Backup(name="torn", problem="its manifest is damaged")]})
    with pytest.raises(BadBackup, match="torn cannot be used: its manifest is damaged"):
        check("torn", found, OWN)
