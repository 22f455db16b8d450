"""The pages: recent sales, one sale, and the form that writes a sale."""

import logging

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from shop import database, sales

blueprint = Blueprint("pages", __name__)

Page = str | tuple[str, int] | Response


@blueprint.get("/")
def recent_sales() -> Page:
    """The newest sales; `?tenant=slug` shows one tenant's."""
    slug = request.args.get("tenant")
    tenant = find_tenant(slug) if slug else None
    return render_template("sales.html", sales=sales.recent(tenant), tenant=tenant, tenants=all_tenants())


@blueprint.get("/sales/<int:number>")
def one_sale(number: int) -> Page:
    """A sale with its lines and payments."""
    sale = database.row(
        """SELECT s.*, t.name AS tenant, t.slug, coalesce(c.name, 'Walk-in') AS customer, c.email
           FROM sale s JOIN tenant t ON t.id = s.tenant_id LEFT JOIN customer c ON c.id = s.customer_id
           WHERE s.id = %s""",
        number,
    )
    if sale is None:
        abort(404)
    lines = database.rows(
        "SELECT l.*, p.name FROM sale_line l JOIN product p ON p.id = l.product_id WHERE sale_id = %s ORDER BY l.id",
        number,
    )
    payments = database.rows("SELECT * FROM sale_payment WHERE sale_id = %s ORDER BY id", number)
    return render_template("sale.html", sale=sale, lines=lines, payments=payments, sent=request.args.get("sent"))


@blueprint.get("/tenants/<slug>/sales/new")
def sale_form(slug: str) -> Page:
    """The empty form."""
    return _form(find_tenant(slug))


@blueprint.post("/tenants/<slug>/sales")
def record_sale(slug: str) -> Page:
    """Write the sale and show it; what is wrong is said on the form, and nothing is written."""
    tenant = find_tenant(slug)
    try:
        number = sales.record(tenant["id"], sales.read_form(request.form))
    except sales.Refused as refused:
        database.connection().rollback()
        return _form(tenant, str(refused)), 422
    return redirect(url_for("pages.one_sale", number=number), code=303)


def find_tenant(slug: str) -> database.Row:
    """The active tenant with that slug, or a 404 page."""
    tenant = database.row("SELECT id, slug, name FROM tenant WHERE slug = %s AND active", slug)
    if tenant is None:
        abort(404)
    return tenant


def all_tenants() -> list[database.Row]:
    """The active tenants by name."""
    return database.rows("SELECT slug, name FROM tenant WHERE active ORDER BY name")


def not_found(_error: Exception) -> Page:
    """The page for a wrong address."""
    return render_template("message.html", title="Not found", text="There is no such page."), 404


def database_lost(_error: Exception) -> Page:
    """The page while the database is away."""
    return render_template("message.html", title="Out of order", text="The database cannot be reached."), 500


def database_failed(error: Exception) -> Page:
    """The page when the database refuses a query that should work."""
    logging.getLogger("shop").error("database error: %s", str(error).strip())
    return render_template("message.html", title="Out of order", text="The database answers with an error."), 500


def _form(tenant: database.Row, problem: str | None = None) -> str:
    products = database.rows(
        """SELECT p.id, p.name, p.price, s.quantity FROM product p JOIN product_stock s ON s.product_id = p.id
           WHERE p.tenant_id = %s AND p.active ORDER BY p.name""",
        tenant["id"],
    )
    customers = database.rows("SELECT id, name FROM customer WHERE tenant_id = %s ORDER BY name", tenant["id"])
    return render_template(
        "new_sale.html",
        tenant=tenant,
        products=products,
        customers=customers,
        methods=sales.METHODS,
        numbers=range(1, sales.LINES + 1),
        typed=request.form,
        problem=problem,
    )
