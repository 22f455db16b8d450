"""The shop: sales and stock of hardware shops, one tenant each."""

import os
from pathlib import Path

import psycopg2
from flask import Flask

from shop import database, health, pages, receipts

VERSION = (Path(__file__).parent.parent / "VERSION").read_text().strip()


def create_app() -> Flask:
    """The WSGI application, configured from the environment (`.env.prod`)."""
    application = Flask(__name__)
    application.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
    application.config.update(receipts.settings(os.environ))
    application.context_processor(lambda: {"version": VERSION})
    receipts.mail.init_app(application)
    application.teardown_appcontext(database.close)
    application.register_blueprint(health.blueprint)
    application.register_blueprint(pages.blueprint)
    application.register_blueprint(receipts.blueprint)
    application.register_error_handler(404, pages.not_found)
    application.register_error_handler(database.ConnectionLost, pages.database_lost)
    application.register_error_handler(psycopg2.Error, pages.database_failed)
    return application


app = create_app()
