"""Receipts by mail, through the SMTP server that `.env.prod` names."""

import logging
import socket
from collections.abc import Mapping
from smtplib import SMTPException

from flask import Blueprint, redirect, render_template, request, url_for
from flask_mail import Mail, Message
from werkzeug.wrappers import Response

from shop import database

blueprint = Blueprint("receipts", __name__)
mail = Mail()

# flask_mail knows no time limit: without this one a silent mail server holds a worker until it is killed.
socket.setdefaulttimeout(4)


def settings(env: Mapping[str, str]) -> dict[str, object]:
    """flask_mail's settings from SMTP_HOST, SMTP_PORT, SMTP_USER, SMTP_PASSWORD and SMTP_FROM."""
    port = int(env.get("SMTP_PORT", "587"))
    return {
        "MAIL_SERVER": env.get("SMTP_HOST", "localhost"),
        "MAIL_PORT": port,
        "MAIL_USE_SSL": port == 465,
        "MAIL_USE_TLS": port == 587,
        "MAIL_USERNAME": env.get("SMTP_USER"),
        "MAIL_PASSWORD": env.get("SMTP_PASSWORD"),
        "MAIL_DEFAULT_SENDER": env.get("SMTP_FROM"),
    }


@blueprint.post("/sales/<int:number>/receipt")
def send_receipt(number: int) -> Response | tuple[str, int]:
    """Mail the sale's receipt to the address in the form field `email`."""
    recipient = request.form.get("email", "").strip()
    sale = database.row(
        "SELECT s.*, t.name AS tenant FROM sale s JOIN tenant t ON t.id = s.tenant_id WHERE s.id = %s", number
    )
    if sale is None or recipient.count("@") != 1 or any(c.isspace() for c in recipient):
        return render_template("message.html", title="Not sent", text="A receipt needs a sale and an address."), 422
    text = f"Sale {number} of {sale['datetime']:%d.%m.%Y}: $ {sale['total']}\n\nThank you.\n{sale['tenant']}\n"
    try:
        mail.send(Message(f"Your receipt from {sale['tenant']}", recipients=[recipient], body=text))
    except (OSError, SMTPException) as error:
        logging.getLogger("shop").error("mail error: SMTP said %s", error)
        return render_template("message.html", title="Not sent", text="The mail server did not take the receipt."), 500
    database.rows(
        "INSERT INTO receipt_mail (tenant_id, sale_id, recipient) VALUES (%s, %s, %s) RETURNING id",
        sale["tenant_id"],
        number,
        recipient,
    )
    database.connection().commit()
    return redirect(url_for("pages.one_sale", number=number, sent=recipient), code=303)
