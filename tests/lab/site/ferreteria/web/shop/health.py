"""GET /health: does the shop answer, and does its database?"""

import psycopg2
from flask import Blueprint, Response, jsonify

from shop import database

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def health() -> tuple[Response, int]:
    """200 when a query works; 500 says whether the database is away or answers with an error."""
    try:
        database.row("SELECT 1 FROM tenant LIMIT 1")
    except database.ConnectionLost as error:
        return _unhealthy("disconnected", error, "The database cannot be reached")
    except psycopg2.Error as error:
        return _unhealthy("error", error, "The database answers with an error")
    return jsonify(status="healthy", database="connected", message="The application is running"), 200


def _unhealthy(database_is: str, error: Exception, message: str) -> tuple[Response, int]:
    return jsonify(status="unhealthy", database=database_is, error=str(error).strip(), message=message), 500
