"""What a person reads before a restored database takes the live one's place."""

from datetime import UTC, datetime

from tasks import restoring, swapping
from tasks.loss import Loss, Share
from tests import sample

SITE = sample.site(database={"name": "shop", "user": "shop", "password": "secret"})
NAME = "2026-11-24T030000Z"
COST = Loss(
    how="whole restore", backup=NAME, at=datetime(2026, 11, 24, 12, tzinfo=UTC), kept="It is kept.",
    shares=[Share(tenant="3", name="Azul", back={"public.sale": 7})],
)  # fmt: skip


def test_the_plan_names_the_safety_backup_and_what_each_tenant_gets() -> None:
    plan = swapping.swap_in.plan(SITE, NAME, COST, f"{NAME}-safety")
    assert plan.facts == (f"safety backup: {NAME}-safety", COST.shares[0].words)
    assert COST.summary in plan.cost and "It is kept." in plan.cost


def test_a_backup_that_failed_its_proof_is_named_bad_in_the_plan() -> None:
    plan = swapping.swap_in.plan(SITE, NAME, COST, "s", "no sale is free: 3 rows")
    assert plan.facts[0] == "the backup is BAD: no sale is free: 3 rows"


def test_without_a_safety_backup_the_plan_says_so_first_and_why() -> None:
    cost = COST.model_copy(update={"uncounted": {"public.move": "public.move cannot be read (invalid page)"}})
    kept = restoring.names(SITE, NAME).kept
    fact = f"NO safety backup: public.move cannot be read (invalid page); the live database is kept as {kept}"
    plan = swapping.swap_in.plan(SITE, NAME, cost, "")
    assert plan.facts[0] == fact
    assert "public.move cannot be read (invalid page): what of it is lost cannot be counted" in plan.cost
