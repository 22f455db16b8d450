"""Sales: what a seller types is checked here and recorded in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg2

from shop import database

LINES = 3
METHODS = ("cash", "card", "transfer")

RECENT = """
    SELECT s.id, s.datetime, s.status, s.total, t.name AS tenant, coalesce(c.name, 'Walk-in') AS customer,
           (SELECT string_agg(l.quantity || ' × ' || p.name, ' · ' ORDER BY l.id)
            FROM sale_line l JOIN product p ON p.id = l.product_id WHERE l.sale_id = s.id) AS items
    FROM sale s JOIN tenant t ON t.id = s.tenant_id LEFT JOIN customer c ON c.id = s.customer_id
    {where} ORDER BY s.datetime DESC, s.id DESC LIMIT 20"""


class Refused(Exception):
    """The sale cannot be recorded; the message is for the seller."""


@dataclass(frozen=True)
class Order:
    """A checked form: pieces by product number, who buys (None: walk-in) and how it is paid."""

    pieces: Mapping[int, int]
    customer_id: int | None
    method: str


def recent(tenant: database.Row | None) -> list[database.Row]:
    """The 20 newest sales, of one tenant or of all."""
    if tenant is None:
        return database.rows(RECENT.format(where=""))
    return database.rows(RECENT.format(where="WHERE s.tenant_id = %s"), tenant["id"])


def read_form(form: Mapping[str, str]) -> Order:
    """Check what was typed. Raises Refused with the first thing that is wrong."""
    pieces: dict[int, int] = {}
    for n in range(1, LINES + 1):
        product, quantity = form.get(f"product_{n}", ""), form.get(f"quantity_{n}", "")
        if not product:
            continue
        if not (product.isdecimal() and quantity.isdecimal() and 1 <= int(quantity) <= 1000):
            raise Refused(f"Line {n}: choose a product and a quantity from 1 to 1000.")
        pieces[int(product)] = pieces.get(int(product), 0) + int(quantity)
    if not pieces:
        raise Refused("A sale needs at least one product.")
    customer, method = form.get("customer", ""), form.get("method", "")
    if method not in METHODS:
        raise Refused("Choose how the sale is paid.")
    if customer and not customer.isdecimal():
        raise Refused("There is no such customer.")
    return Order(pieces, int(customer) if customer else None, method)


def record(tenant_id: int, order: Order) -> int:
    """Write the sale, its lines and its payment together, and return its number.

    Totals, stock and the ledger follow by triggers. Raises Refused when the tenant has no such product or
    customer, or not enough stock; then nothing is written.
    """
    if order.customer_id and not database.row(
        "SELECT 1 FROM customer WHERE id = %s AND tenant_id = %s", order.customer_id, tenant_id
    ):
        raise Refused("There is no such customer.")
    sale = database.rows(
        "INSERT INTO sale (tenant_id, customer_id, status) VALUES (%s, %s, 'paid') RETURNING id",
        tenant_id,
        order.customer_id,
    )[0]
    # In the order of their numbers, so that two sales of the same products never lock each other out.
    for product_id, quantity in sorted(order.pieces.items()):
        _add_line(tenant_id, sale["id"], product_id, quantity)
    database.rows(
        """INSERT INTO sale_payment (tenant_id, sale_id, method, amount)
           SELECT tenant_id, id, %s, total FROM sale WHERE id = %s RETURNING id""",
        order.method,
        sale["id"],
    )
    database.connection().commit()
    return int(sale["id"])


def _add_line(tenant_id: int, sale_id: int, product_id: int, quantity: int) -> None:
    try:
        line = database.row(
            """INSERT INTO sale_line (tenant_id, sale_id, product_id, quantity, unit_price)
               SELECT tenant_id, %s, id, %s, price FROM product
               WHERE id = %s AND tenant_id = %s AND active RETURNING id""",
            sale_id,
            quantity,
            product_id,
            tenant_id,
        )
    except psycopg2.errors.CheckViolation as error:
        raise Refused(f"There are not {quantity} pieces of product {product_id} in stock.") from error
    if line is None:
        raise Refused(f"This shop does not sell product {product_id}.")
