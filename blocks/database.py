"""The application's database, and what its owners know about it that no catalogue says."""

import re
from typing import Annotated

from prefect.blocks.core import Block
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

# What PostgreSQL's own programs take as one word: no option, no connection string.
Identifier = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_$-]*$")]


def _named_queries(value: str) -> str:
    if value.strip() and not queries(value):
        raise ValueError(
            "has no query. Start each with a line `-- name: what always holds`; rows that it returns violate it"
        )
    return value


def queries(text: str) -> dict[str, str]:
    """The queries of an invariants file by name: `-- name: NAME` starts one, a semicolon ends it."""
    parts = re.split(r"^-- name: *(\S.*?) *$", text, flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: query.strip().removesuffix(";") for name, query in pairs if query.strip()}


class Tenants(BaseModel):
    """How rows belong to tenants, so that damage and loss are told by name."""

    table: Identifier = Field(default="tenant", description="The table of tenants.")
    key: Identifier = Field(default="id", description="Its primary key.")
    title: Identifier = Field(default="name", description="The column with the tenant's name.")
    email: Identifier | None = Field(default="owner_email", description="The column with its owner's address.")
    column: Identifier = Field(default="tenant_id", description="The column that other tables refer to a tenant with.")


class Database(Block):
    """A PostgreSQL database in the site's db service, reached through the SSH connection; no port is published."""

    model_config = ConfigDict(hide_input_in_errors=True)
    _block_type_name = "Guardia Database"
    _block_type_slug = "guardia-database"
    _description = "The site's PostgreSQL database, reached through SSH."

    name: Identifier = Field(description="Database name, POSTGRES_DB in the site's env file.")
    user: Identifier = Field(
        description="Its owner, POSTGRES_USER in the site's env file. It must be a superuser, as the official image "
        "makes it: row level security is then seen through, and a database can be restored beside the live one."
    )
    password: SecretStr = Field(description="The user's password.")
    port: int = Field(default=5432, ge=1, le=65535, description="Port inside the container.")
    tenants: Tenants | None = Field(default=Tenants(), description="How rows belong to tenants.")
    recent: list[str] = Field(
        default=[
            "SELECT * FROM tenant ORDER BY created_at DESC LIMIT 10",
            "SELECT * FROM sale ORDER BY datetime DESC LIMIT 10",
        ],
        description="The guide's queries for a look at recent data.",
    )
    invariants: Annotated[str, AfterValidator(_named_queries)] = Field(
        default="", description="SQL text of queries, each after a line `-- name: …`, whose rows violate the name."
    )
