"""The shop as a visitor, a seller and a probe meet it."""

import json

import pytest

from tests.lab.engine import docker
from tests.lab.site_test.conftest import Stack, wait_until
from tests.lab.site_test.test_data import violated

pytestmark = pytest.mark.lab


def sales(stack: Stack) -> int:
    return int(stack.sql("SELECT count(*) FROM sale"))


def test_a_healthy_shop_says_so(stack: Stack) -> None:
    answer = stack.ask("/health")
    assert answer.status == 200
    assert json.loads(answer.text).items() >= {"status": "healthy", "database": "connected"}.items()


def test_visitors_see_the_sales_of_every_tenant_or_of_one(stack: Stack) -> None:
    assert "Ferretería Azul" in stack.ask("/?tenant=azul").text
    assert "<th>Shop</th>" in stack.ask("/").text
    assert "<th>Shop</th>" not in stack.ask("/?tenant=azul").text


@pytest.mark.parametrize("path", ["/?tenant=nobody", "/tenants/pigue/sales/new", "/sales/999999999999", "/nothing"])
def test_what_is_not_there_is_a_404_page(stack: Stack, path: str) -> None:
    answer = stack.ask(path)
    assert answer.status == 404
    assert "There is no such page" in answer.text


def test_a_sale_that_a_seller_records_moves_stock_and_enters_the_ledger(stack: Stack) -> None:
    stock = "SELECT quantity FROM product_stock WHERE product_id = 61"
    before, count = int(stack.sql(stock)), sales(stack)
    answer = stack.ask("/tenants/azul/sales", "product_1=61&quantity_1=2&product_2=62&quantity_2=1&method=card")
    assert "paid by card" in answer.text
    assert (int(stack.sql(stock)), sales(stack)) == (before - 2, count + 1)
    number = answer.url.rsplit("/", 1)[1]
    assert stack.sql("SELECT concept FROM finance_ledger ORDER BY id DESC LIMIT 1") == f"Sale {number}"
    assert violated(stack, "SELECT 1") == set()


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ("method=cash", "at least one product"),
        ("product_1=61&quantity_1=0&method=cash", "a quantity from 1 to 1000"),
        ("product_1=61&quantity_1=many&method=cash", "a quantity from 1 to 1000"),
        ("product_1=61&quantity_1=1&method=barter", "how the sale is paid"),
        ("product_1=61&quantity_1=1&method=cash&customer=1", "no such customer"),
        ("product_1=62&quantity_1=1&product_2=1&quantity_2=1&method=cash", "does not sell product 1"),
        ("product_1=62&quantity_1=1&product_2=61&quantity_2=1000&method=cash", "not 1000 pieces of product 61"),
    ],
)
def test_a_wrong_form_is_explained_and_nothing_is_written(stack: Stack, form: str, complaint: str) -> None:
    count = sales(stack)
    answer = stack.ask("/tenants/azul/sales", form)
    assert answer.status == 422
    assert complaint in answer.text
    assert sales(stack) == count


def test_a_mail_server_that_cannot_be_reached_is_said_and_logged(stack: Stack) -> None:
    answer = stack.ask("/sales/7/receipt", "email=ana@azul.test")
    assert answer.status == 500
    assert "mail server did not take the receipt" in answer.text
    assert stack.sql("SELECT count(*) FROM receipt_mail") == "0"
    assert "mail error: SMTP said" in stack.log()


def test_without_its_database_the_shop_answers_500_and_comes_back(stack: Stack) -> None:
    docker("stop", stack.db)
    try:
        page, health = stack.ask("/"), stack.ask("/health")
    finally:
        docker("start", stack.db)
    assert (page.status, health.status) == (500, 500)
    assert "The database cannot be reached" in page.text
    assert json.loads(health.text).items() >= {"status": "unhealthy", "database": "disconnected"}.items()
    assert "database connection error" in stack.log()
    wait_until(lambda: stack.ask("/health").status == 200)


def test_a_query_that_fails_is_told_from_a_database_that_is_away(stack: Stack) -> None:
    stack.sql("ALTER TABLE tenant RENAME TO lost")
    try:
        page, health = stack.ask("/"), stack.ask("/health")
    finally:
        stack.sql("ALTER TABLE lost RENAME TO tenant")
    assert (page.status, health.status) == (500, 500)
    assert json.loads(health.text)["database"] == "error"


def test_a_hung_database_gives_500_within_seconds(stack: Stack) -> None:
    docker("pause", stack.db)
    try:
        health = stack.ask("/health")
    finally:
        docker("unpause", stack.db)
    assert json.loads(health.text)["database"] == "disconnected"
