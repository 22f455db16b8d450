"""The data-corruption playbook against a practice shop whose data is really damaged."""

import mailbox
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.steps import acting_limit
from tests.lab import faults
from tests.lab.database import COMPOSE, sql
from tests.lab.home import LabError
from tests.lab.seaweed import Store
from tests.lab.served import SITE, Guardia, served
from tests.lab.site.invariants import invariants
from tests.lab.sweep import killed_after
from tests.lab.vps import PracticeVps, wait_healthy
from tests.lab.writers import selling

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


# The seed has none, and whoever loses sales loses these too.
RECEIPTS = """INSERT INTO receipt_mail (tenant_id, sale_id, recipient)
    SELECT tenant_id, id, format('customer-%s@tandil.test', id) FROM sale WHERE tenant_id IN (3, 4) AND id % 10 = 0"""


@pytest.fixture(scope="module")
def guardia(machine: PracticeVps, s3_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardia]:
    sql(machine, RECEIPTS)
    with served(machine, tmp_path_factory.mktemp("damage"), store=s3_store) as running:
        assert running.wait(running.start("daily-backup"))["name"] == "Backed up"
        assert running.wait(running.start("verify-backup"))["name"] == "Proven"
        yield running


def answer(guardia: Guardia, run: str, *words: str) -> None:
    done = guardia.command("approve", run, "--as", "Ana", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    guardia.wait(run, lambda state: state["type"] != "PAUSED")


def next_question(guardia: Guardia, run: str) -> dict[str, Any]:
    state = guardia.wait_for_gate(run)
    assert state["type"] == "PAUSED", (state, guardia.timeline(run)[-3:])
    for _ in range(40):  # the server stores entries a moment after they were sent
        entries = guardia.timeline(run)
        asked, answered = ([e for e in entries if e["kind"] == kind] for kind in ("asked", "answered"))
        if len(asked) > len(answered):
            return dict(asked[-1])
        time.sleep(0.25)
    raise AssertionError(f"{run} waits, but its timeline does not say for what: {entries[-3:]}")


def ended(guardia: Guardia, run: str, name: str) -> None:
    state = guardia.wait(run)
    assert state["name"] == name, f"{state['name']}: {state['message']}"


NEWEST, COUNT = "SELECT coalesce(max(id), 0) FROM {}", "SELECT count(*) FROM ({}) violating"
OF_SALES = ("sale", "sale_line", "sale_payment", "stock_move", "finance_ledger", "receipt_mail")


def seeded(vps: PracticeVps, newest: dict[str, str]) -> dict[str, str]:
    """Every row that was there before anybody sold, as a checksum a table."""
    query = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY id)) FROM {} t WHERE id <= {}"
    return {table: sql(vps, query.format(table, newest[table])) for table in OF_SALES}


def written_since(vps: PracticeVps, newest: dict[str, str]) -> set[str]:
    """Every row that whoever sold wrote since then, whole, with its table's name before it."""
    query = "SELECT '{0} ' || t::text FROM {0} t WHERE id > {1}"
    return set(sql(vps, " UNION ALL ".join(query.format(table, newest[table]) for table in OF_SALES)).splitlines())


def violated(vps: PracticeVps) -> list[str]:
    """The invariants that do not hold."""
    return [name for name, query in invariants().items() if sql(vps, COUNT.format(query)) != "0"]


def letters(vps: PracticeVps) -> list[str]:
    """To whom letters about their data were written, oldest first."""
    mails = mailbox.Maildir(vps.mail, create=False).items()
    return [str(mail["To"]) for _, mail in sorted(mails) if "Your data" in str(mail["Subject"])]


def test_deleted_sales_are_rescued_row_by_row_while_others_sell(vps: PracticeVps, guardia: Guardia) -> None:
    newest, written = {table: sql(vps, NEWEST.format(table)) for table in OF_SALES}, letters(vps)
    before = seeded(vps, newest)
    faults.inject(vps, "tenant-sales-deleted")
    assert [table for table, rows in seeded(vps, newest).items() if rows == before[table]] == []
    with selling(vps, 100, "rescue", pause=0.5) as sales:
        run = guardia.start("data-corruption", reason="a tenant reports missing sales")
        asked = next_question(guardia, run)
        assert "missing" in asked["text"]
        answer(guardia, run, "--choose", "rescue")
        asked = next_question(guardia, run)
        assert "Put rows back" in asked["what"], asked
        newer = written_since(vps, newest)
        answer(guardia, run)
        asked = next_question(guardia, run)
        assert "Write to" in asked["what"], asked
        answer(guardia, run)
        ended(guardia, run, "Resolved")
    assert seeded(vps, newest) == before
    assert len(newer) > 600 and newer - written_since(vps, newest) == set()
    assert len(sales.sold) > 100 and sales.lost(vps, "ferreteria_db") == []
    assert violated(vps) == []
    wait_healthy(vps)
    new = letters(vps)[len(written) :]
    assert len(new) == 1 and new[0].startswith("owner@")


def test_prices_that_an_update_overwrote_are_set_back_row_by_row_and_what_was_sold_since_stays(
    vps: PracticeVps, guardia: Guardia
) -> None:
    every = "SELECT t::text FROM product t ORDER BY id"
    newest, before = {table: sql(vps, NEWEST.format(table)) for table in OF_SALES}, sql(vps, every).splitlines()
    faults.inject(vps, "column-overwritten")
    spoilt = sql(vps, every).splitlines()
    assert len(spoilt) == len(before) and [row for row in spoilt if row in before] == []
    with selling(vps, 8, "spoilt", pause=0.2) as sales:
        run = guardia.start(
            "data-corruption", how="rescue with changed rows", only="product", reason="all prices are the same"
        )
        asked = next_question(guardia, run)
        assert "Put rows back" in asked["what"] and "UPDATE public.product" in asked["text"], asked
        newer = written_since(vps, newest)
        answer(guardia, run)
        asked = next_question(guardia, run)
        assert "Set back to what the backup" in asked["text"] and "- product: 60 rows" in asked["text"], asked
        answer(guardia, run, "--refuse")
        ended(guardia, run, "Resolved")
    assert sql(vps, every).splitlines() == before
    assert len(newer) > 100 and newer - written_since(vps, newest) == set()
    assert sales.lost(vps, "ferreteria_db") == [] and violated(vps) == []
    record = guardia.records()[-1].read_text()
    assert "0 rows back, 1,200 rows set back, 0 rows lost; 20 tenants are affected" in record
    assert re.search(r"goes back by `guardia restore \S+-safety --site tandil`", record)
    wait_healthy(vps)


def test_killed_right_after_each_answer_a_run_goes_on_and_asks_nothing_twice(
    vps: PracticeVps, guardia: Guardia
) -> None:
    newest, written = {table: sql(vps, NEWEST.format(table)) for table in OF_SALES}, letters(vps)
    before = seeded(vps, newest)
    faults.inject(vps, "tenant-sales-deleted")
    run = guardia.start("data-corruption", reason="a tenant reports missing sales")
    for question, words in (("Get the data back", ("--choose", "rescue")), ("Put rows back", ()), ("Write to", ())):
        asked = next_question(guardia, run)
        assert question in asked["what"], asked
        with killed_after(guardia, 0) as killer:
            answer(guardia, run, *words)
            assert guardia.wait(run)["type"] == "CRASHED"
        assert killer.at is not None
        guardia.retry(run, frees=acting_limit(SITE))
    ended(guardia, run, "Resolved")
    assert [entry["what"] for entry in guardia.timeline(run) if entry["kind"] == "asked"] == [
        "Ana: Get the data back?",
        "Ana: Put rows back from the backup?",
        "Ana: Write to the owners of 1 affected tenants?",
    ]
    acts = Counter(guardia.acts(run))
    assert {what for what, count in acts.items() if count > 1} == set(), acts
    assert seeded(vps, newest) == before
    assert len(letters(vps)) == len(written) + 1
    wait_healthy(vps)


def test_plan_mode_compares_nothing_and_changes_nothing(vps: PracticeVps, guardia: Guardia) -> None:
    faults.inject(vps, "table-dropped")
    mark, objects = vps.audit(), guardia.command("backups").stdout
    done = guardia.command("plan", "data-corruption", timeout=240)
    assert done.returncode == 0, done.stderr
    for words in ("ferreteria/.env.prod stop web", "pg_restore --exit-on-error", "would make a safety backup",
                  'RENAME TO "ferreteria_db"', "Nothing was changed"):  # fmt: skip
        assert words in done.stdout
    assert mark.changes() == []
    assert [line.split()[0] for line in guardia.command("backups").stdout.splitlines()] == [
        line.split()[0] for line in objects.splitlines()
    ]


def test_without_space_for_a_restore_the_site_is_started_again_and_all_is_as_it_was(
    vps: PracticeVps, guardia: Guardia
) -> None:
    faults.inject(vps, "table-dropped")
    names = sql(vps, "SELECT datname FROM pg_database ORDER BY 1")
    vps.shell("fallocate -l $(($(stat -f -c '%a*%S' /) - (300 << 20))) /root/filler")
    try:
        run = guardia.start("data-corruption", how="whole restore")
        state = guardia.wait(run)
    finally:
        vps.shell("rm /root/filler")
    assert state["name"] == "Unresolved", state
    assert "free for the database of" in state["message"] and "Free some" in state["message"], state
    assert guardia.acts(run)[-1] == "Start the web service again as it was"
    assert sql(vps, "SELECT datname FROM pg_database ORDER BY 1") == names
    wait_healthy(vps)


def running(vps: PracticeVps) -> bool:
    """Whether the web service runs."""
    return vps.shell("docker inspect -f '{{.State.Running}}' ferreteria_web_prod").strip() == "true"


def test_a_service_that_was_started_while_a_restore_waited_is_stopped_again_and_its_rows_are_asked_about(
    vps: PracticeVps, guardia: Guardia
) -> None:
    faults.inject(vps, "table-dropped")
    run = guardia.start("data-corruption", how="whole restore", reason="the table is gone")
    first = next_question(guardia, run)
    assert "0 rows lost" in first["detail"]["cost"] and not running(vps)
    alert = guardia.wait(guardia.start("site-down", reason="an alert, as the site is down"))
    assert alert["name"] == "Attached" and run in alert["message"] and not running(vps)
    vps.shell(f"{COMPOSE} start web")  # behind everybody's back
    sql(vps, "INSERT INTO supplier (tenant_id, name) VALUES (3, 'while it waited')")
    answer(guardia, run)
    second = next_question(guardia, run)
    assert "1 rows lost" in second["detail"]["cost"] and not running(vps), second
    answer(guardia, run)
    while guardia.wait_for_gate(run)["type"] == "PAUSED":
        answer(guardia, run, "--refuse")
    ended(guardia, run, "Resolved")
    acts = Counter(guardia.acts(run))
    assert acts["Stop the web service"] == 2 and acts["Put the restored database in the live one's place"] == 1, acts
    (old,) = sql(vps, "SELECT datname FROM pg_database WHERE datname ~ '_old_'").splitlines()
    query = "SELECT count(*) FROM supplier WHERE name = 'while it waited'"
    assert (sql(vps, query), sql(vps, query, old)) == ("0", "1")
    wait_healthy(vps)


def test_a_table_that_cannot_be_read_is_restored_without_the_safety_backup_that_nobody_can_make(
    vps: PracticeVps, guardia: Guardia
) -> None:
    newest = {table: sql(vps, NEWEST.format(table)) for table in OF_SALES}
    before = seeded(vps, newest)
    faults.inject(vps, "heap-garbled")
    backups = len(guardia.command("backups").stdout.splitlines())
    run = guardia.start("data-corruption", how="whole restore", reason="invalid page in block")
    asked = next_question(guardia, run)
    (old,) = re.findall(r"NO safety backup: public\.sale cannot be read \(invalid page .*as (ferreteria_db_old_\w+)",
                        asked["text"])  # fmt: skip
    back = f"{int(before['sale'].partition('|')[0]):,} rows back, 0 rows set back, 0 rows lost; 20 tenants are affected"
    assert back in asked["detail"]["cost"] and "cannot be counted" in asked["detail"]["cost"], asked
    assert not running(vps)
    answer(guardia, run)
    while guardia.wait_for_gate(run)["type"] == "PAUSED":
        answer(guardia, run, "--refuse")
    ended(guardia, run, "Resolved")
    assert seeded(vps, newest) == before
    with pytest.raises(LabError, match="invalid page in block"):
        sql(vps, "SELECT sum(total) FROM sale", old)
    said = [entry["outcome"] for entry in guardia.timeline(run) if "safety backup" in entry["what"]]
    assert [outcome[:16] for outcome in said] == ["NO safety backup"], said
    assert "NO safety backup" in guardia.records()[-1].read_text()
    assert len(guardia.command("backups").stdout.splitlines()) == backups
    wait_healthy(vps)


def test_a_whole_restore_keeps_the_database_it_replaces_and_can_be_undone(vps: PracticeVps, guardia: Guardia) -> None:
    rows = sql(vps, "SELECT count(*) FROM sale_payment")
    assert guardia.wait(guardia.start("daily-backup"))["name"] == "Backed up"
    name = re.findall(r"(\d{4}-\d\d-\d\dT\d{6}Z) ", guardia.command("backups").stdout)[0]  # the newest, not a -safety
    faults.inject(vps, "table-dropped")
    run = guardia.start("data-corruption", reason="the table is gone")
    assert f"backup {name}: NOT proven" in next_question(guardia, run)["text"]
    answer(guardia, run, "--choose", "whole restore", "--backup", name)
    asked = next_question(guardia, run)
    assert "in the place of" in asked["what"], asked
    (new,) = sql(vps, "SELECT datname FROM pg_database WHERE datname ~ '_new_'").splitlines()
    assert new.endswith(name.lower().replace("-", "")), "what it was compared with first is gone"
    answer(guardia, run)
    while guardia.wait_for_gate(run)["type"] == "PAUSED":
        answer(guardia, run, "--refuse")
    ended(guardia, run, "Resolved")  # the data is back, though nobody is written to
    assert sql(vps, "SELECT count(*) FROM sale_payment") == rows
    assert "_old_" in sql(vps, "SELECT string_agg(datname, ' ') FROM pg_database")
    wait_healthy(vps)
    run = guardia.start("undo-restore")
    next_question(guardia, run)
    answer(guardia, run)
    ended(guardia, run, "Resolved")
    wait_healthy(vps)
    assert sql(vps, "SELECT to_regclass('sale_payment') IS NULL") == "t"
