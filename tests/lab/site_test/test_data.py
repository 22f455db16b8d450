"""The shop's data: the seed is sound and repeatable, the triggers keep it sound, the invariants notice damage."""

import pytest

from tests.lab.site.history import SOURCE
from tests.lab.site.invariants import invariants
from tests.lab.site_test.conftest import DATABASE, SITE, Stack

pytestmark = pytest.mark.lab

DAMAGE = {
    "a sale's total is the sum of its lines": "UPDATE sale SET total = total + 1 WHERE id = 7",
    "every sale that is not a draft has lines": "DELETE FROM sale_line WHERE sale_id = 7",
    "a paid sale is paid in full": "UPDATE sale_payment SET amount = amount + 1 WHERE sale_id = 7",
    "the stock is the initial stock and all its moves": "UPDATE product_stock SET quantity = 1 WHERE product_id = 7",
    "a sold line moved its pieces out of stock, a cancelled one also back": "UPDATE sale_line SET quantity = 99"
    " WHERE id = 4",
    "every payment is in the ledger with its amount": "DELETE FROM finance_ledger WHERE payment_id = 7",
    "every purchase is in the ledger with its total": "DELETE FROM finance_ledger WHERE purchase_id = 7",
    "nothing belongs to two tenants": "UPDATE sale_line SET tenant_id = 1 + tenant_id % 20 WHERE sale_id = 7",
    "no row has lost the row it belongs to": "DELETE FROM sale WHERE id = 7",
}
# As restored or half-written data would be: without the triggers and checks that the live tables have.
UNCHECKED = "SET LOCAL session_replication_role = replica"
CONTENT = """
SELECT format('SELECT %L, count(*), sum(hashtextextended(t::text, 0)::numeric) FROM %I t', table_name, table_name)
FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name \\gexec
"""


def violated(stack: Stack, change: str) -> set[str]:
    """The invariants that the change violates; the change is undone."""
    counts = "".join(f"SELECT count(*) FROM ({query}) q;\n" for query in invariants().values())  # noqa: S608
    printed = stack.sql(f"BEGIN; {change};\n{counts}ROLLBACK;").splitlines()
    return {name for name, count in zip(invariants(), printed[-len(invariants()) :], strict=True) if count != "0"}


def test_the_seeded_shop_violates_no_invariant(stack: Stack) -> None:
    assert violated(stack, "SELECT 1") == set()


def test_there_is_a_kind_of_damage_for_every_invariant() -> None:
    assert set(DAMAGE) == set(invariants())


@pytest.mark.parametrize("name", DAMAGE)
def test_an_invariant_notices_damage(stack: Stack, name: str) -> None:
    assert stack.sql(f"BEGIN; {UNCHECKED}; {DAMAGE[name]} RETURNING 'changed'; ROLLBACK;").startswith("changed")
    assert name in violated(stack, f"{UNCHECKED}; {DAMAGE[name]}")


def test_the_same_number_of_sales_gives_the_same_rows(stack: Stack) -> None:
    for database in ("one", "two"):
        stack.sql(f"CREATE DATABASE {database}")
        stack.sql((SOURCE / "db/init/schema.sql").read_text(), database=database)
        stack.sql((SITE / "seed.sql").read_text(), "-v", "sales=500", database=database)
    assert stack.sql(CONTENT, database="one") == stack.sql(CONTENT, database="two")
    assert "sale|500|" in stack.sql(CONTENT, database="one")


def test_selling_and_cancelling_keep_the_data_sound(stack: Stack) -> None:
    sell = """INSERT INTO sale (id, tenant_id, status) VALUES (900001, 1, 'paid'), (900002, 1, 'confirmed');
        INSERT INTO sale_line (tenant_id, sale_id, product_id, quantity, unit_price) VALUES (1, 900001, 1, 2, 10),
            (1, 900001, 2, 1, 5), (1, 900002, 1, 3, 10);
        INSERT INTO sale_payment (tenant_id, sale_id, method, amount) VALUES (1, 900001, 'cash', 25)"""
    cancel = "UPDATE sale SET status = 'cancelled' WHERE id = 900002"
    stock = "SELECT quantity FROM product_stock WHERE product_id = 1"
    printed = stack.sql(f"BEGIN; {stock}; {sell}; {stock}; {cancel}; {stock}; ROLLBACK")
    before, sold, cancelled = map(int, printed.splitlines())
    assert (sold, cancelled) == (before - 5, before - 2)
    assert violated(stack, f"{sell}; {cancel}") == set()


def test_an_update_sets_updated_at(stack: Stack) -> None:
    touched = stack.sql("BEGIN; UPDATE tenant SET name = 'x' WHERE id = 1 RETURNING updated_at = now(); ROLLBACK")
    assert touched == "t"


def test_a_new_row_follows_the_seeded_ones(stack: Stack) -> None:
    assert stack.sql("BEGIN; INSERT INTO sale (tenant_id) VALUES (1) RETURNING id > 2000; ROLLBACK") == "t"


def test_the_database_asks_for_a_password_except_on_its_own_socket(stack: Stack) -> None:
    url = f"postgresql://ferreteria_user:wrong@127.0.0.1/{DATABASE}"
    assert stack.sql(f"\\! psql '{url}' -c 'SELECT 1' 2>&1").count("password authentication failed") == 1
