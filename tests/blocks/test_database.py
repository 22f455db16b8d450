"""What a database's settings accept, and what its invariants file says."""

from typing import Any

import pytest
from pydantic import ValidationError

from blocks.database import Database, Tenants, queries

GOOD: dict[str, Any] = {"name": "ferreteria_db", "user": "ferreteria_user", "password": "hunter2"}
INVARIANTS = """
-- Everything above the first name is commentary.
-- name: a sale's total is the sum of its lines
SELECT id FROM sale;

-- name: no orphans
-- with a comment
SELECT 1
WHERE false;
"""


def test_a_database_needs_a_name_a_user_and_a_password() -> None:
    found = Database.model_validate(GOOD)
    assert (found.port, found.tenants) == (5432, Tenants())


REFUSED = [
    ("name", "", "at least 1"),
    ("name", "-d", "pattern"),
    ("name", "host=elsewhere", "pattern"),
    ("name", "postgresql://elsewhere/d", "pattern"),
    ("name", "a" * 64, "at most 63"),
    ("name", "d\n", "pattern"),
    ("user", "u u", "pattern"),
    ("port", 0, "greater than or equal to 1"),
    ("tenants", {"table": "tenant; DROP TABLE tenant"}, "pattern"),
    ("invariants", "SELECT 1;", "has no query. Start each with a line `-- name:"),
]


@pytest.mark.parametrize(("field", "value", "why"), REFUSED)
def test_a_bad_value_is_refused_with_the_reason(field: str, value: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Database.model_validate(GOOD | {field: value})


def test_no_repr_shows_the_password() -> None:
    found = Database.model_validate(GOOD)
    assert "hunter2" not in repr(found) + str(found) + found.model_dump_json()


def test_an_application_without_tenants_says_so() -> None:
    assert Database.model_validate(GOOD | {"tenants": None}).tenants is None


def test_queries_are_told_by_their_names() -> None:
    assert queries(INVARIANTS) == {
        "a sale's total is the sum of its lines": "SELECT id FROM sale",
        "no orphans": "-- with a comment\nSELECT 1\nWHERE false",
    }


@pytest.mark.parametrize("text", ["", "\n", "-- nothing", "-- name: empty\n\n"])
def test_a_text_without_queries_has_none(text: str) -> None:
    assert queries(text) == {}
