"""The application that is on call: where it answers, where it lives, and what may be done to it."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect.blocks.core import Block
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, IPvAnyAddress, model_validator

from blocks.backup_store import BackupStore, Drill, OwnScripts
from blocks.database import Database
from blocks.host import Host
from blocks.mailbox import Mailbox
from blocks.on_call import OnCall
from blocks.pem import Certificates

Gate = Literal["ask", "none"]
NAME = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"


def _absolute(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or ".." in path.parts or any(ord(c) < 32 for c in value):
        raise ValueError(f"{value!r} must be an absolute path on the VPS without '..', e.g. /root/ferreteria")
    return str(path)


def _timezone(value: str) -> str:
    try:
        return ZoneInfo(value).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone. Write e.g. 'America/Argentina/Buenos_Aires'") from None


def _file_name(value: str) -> str:
    if value.startswith("-") or value in {".", ".."} or "/" in value or any(ord(c) < 32 for c in value):
        raise ValueError(f"{value!r} must be a plain file name in the application folder")
    return value


Service = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Services(BaseModel):
    """The names of the Compose services that the guide speaks of."""

    web: Service = "web"
    db: Service = "db"
    nginx: Service = "nginx"

    def all(self) -> list[str]:
        """In the order in which the guide reads their logs."""
        return [self.web, self.db, self.nginx]


class GatePolicy(BaseModel):
    """Which acts wait for a person, and for how long."""

    restart: Gate = Field(default="none", description="Restarting services.")
    prune: Gate = Field(default="ask", description="Deleting unused Docker data.")
    reboot: Gate = Field(default="ask", description="Rebooting the VPS.")
    stop_web: Gate = Field(
        default="none", description="Stopping the web service at once when data is being lost or damaged."
    )
    free_space: Gate = Field(default="ask", description="Freeing disk space so that the database can start.")
    chown: Gate = Field(default="ask", description="Giving the database's files back to its user.")
    restore: Gate = Field(default="ask", description="Restoring a database, or rows of it, from a backup.")
    notify: Gate = Field(default="ask", description="Writing to the tenants whose data was lost or restored.")
    schedule: Gate = Field(default="ask", description="Putting a backup schedule right.")
    escalate_after: int | None = Field(
        default=None, ge=1, description="Seconds of silence before the secondary is asked; empty: by severity."
    )
    refuse_after: int | None = Field(
        default=None, ge=5, le=7 * 86400, description="Seconds of silence that count as a refusal; empty: by severity."
    )


class Site(Block):
    """An application served at a URL from a Docker Compose folder on one host."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a bad private key must not be quoted
    _block_type_name = "Guardia Site"
    _block_type_slug = "guardia-site"
    _description = "An application served at a URL from a Docker Compose folder on one host."

    name: str = Field(pattern=NAME, description="Short name: lower-case letters, digits and dashes.")
    url: HttpUrl = Field(description="Where users reach it, e.g. https://tandil.site.")
    health_path: str = Field(default="/health", pattern=r"^/[!-~]*$", description="Path of the health check.")
    address: IPvAnyAddress | None = Field(
        default=None, description="Connect to this IP address instead of asking DNS (like curl --resolve)."
    )
    ca_certificates: Certificates | None = Field(
        default=None, description="PEM text of extra certificate authorities to trust for the URL."
    )
    controls: list[HttpUrl] = Field(
        default=[HttpUrl("https://www.cloudflare.com/cdn-cgi/trace"), HttpUrl("https://www.gstatic.com/generate_204")],
        min_length=1,
        description="Addresses elsewhere that are up when the internet is: they tell an outage of the site "
        "from one of Guardia's own network.",
    )
    folder: Annotated[str, AfterValidator(_absolute)] = Field(
        description="The application folder on the VPS, e.g. /root/ferreteria."
    )
    compose_file: Annotated[str, AfterValidator(_file_name)] = Field(
        default="docker-compose.prod.yml", min_length=1, description="Compose file in that folder."
    )
    env_file: Annotated[str, AfterValidator(_file_name)] | None = Field(
        default=".env.prod", min_length=1, description="Env file for Compose in that folder; empty if there is none."
    )
    services: Services = Field(default=Services(), description="Compose service names.")
    host: Host = Field(description="The machine it runs on.")
    on_call: OnCall = Field(description="Who is told and who approves.")
    mailbox: Mailbox | None = Field(default=None, description="Where e-mail to the on-call is sent from.")
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", description="The site's time zone, e.g. America/Argentina/Buenos_Aires."
    )
    database: Database | None = Field(default=None, description="Its PostgreSQL database.")
    backups: BackupStore | None = Field(default=None, description="Where its backups are kept.")
    own_scripts: OwnScripts | None = Field(default=None, description="The backup scripts that it had before.")
    drill: Drill = Field(default=Drill(), description="Where and within which limits backups are proven.")
    gates: GatePolicy = Field(default=GatePolicy(), description="Which acts wait for a person.")
    disk_limit: int = Field(default=85, ge=1, le=100, description="Percent of disk in use that counts as short.")
    memory_limit: int = Field(default=90, ge=1, le=100, description="Percent of memory in use that counts as short.")
    healthy_in_a_row: int = Field(
        default=3, ge=1, le=60, description="Healthy answers in a row, 1 s apart, that count as recovered."
    )
    recovery_timeout: int = Field(
        default=60, ge=5, le=1800, description="Seconds that a restart may take to show outside."
    )
    reboot_timeout: int = Field(default=300, ge=10, le=3600, description="Seconds that a reboot may take.")
    sentry_url: HttpUrl | None = Field(default=None, description="The site's alerts in Sentry.")
    github_url: HttpUrl | None = Field(default=None, description="The site's repository.")

    @model_validator(mode="after")
    def _mail_has_a_sender(self) -> Self:
        people = [self.on_call.primary, self.on_call.secondary, *self.on_call.stakeholders]
        mail = [channel for person in people if person for channel in person.channels if "@" in channel]
        if mail and self.mailbox is None:
            raise ValueError(f"{mail[0]} is an e-mail address, but there is no [mailbox] to send from; add one")
        return self

    @model_validator(mode="after")
    def _backups_need_a_database(self) -> Self:
        if self.backups and self.database is None:
            raise ValueError("[backups] needs a [database] to back up; add one")
        return self

    @property
    def health_url(self) -> str:
        """The address of the health check."""
        return str(self.url).rstrip("/") + self.health_path
