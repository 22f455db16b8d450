"""Where backups are kept, for how long, and where they are proven."""

import base64
import binascii
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from prefect.blocks.core import Block
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator, model_validator

from blocks.host import Host
from blocks.pem import Certificates


def _folder(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or len(path.parts) < 3 or ".." in path.parts or any(ord(c) < 32 for c in value):
        raise ValueError(f"{value!r} must be an absolute path on the VPS, two folders deep or more, without '..'")
    return str(path)


Folder = Annotated[str, AfterValidator(_folder)]


class Retention(BaseModel):
    """Which backups are kept. The newest of each day, week and month counts; proven ones are never too few."""

    daily: int = Field(default=30, ge=1, le=3650, description="Days of which the newest backup is kept.")
    weekly: int = Field(default=8, ge=0, le=520, description="Weeks of which the newest backup is kept.")
    monthly: int = Field(default=12, ge=0, le=240, description="Months of which the newest backup is kept.")
    proven: int = Field(default=3, ge=1, le=100, description="Never keep fewer proven backups, whatever their age.")


class BackupStore(Block):
    """An S3 bucket that backups of a site go to, and the folder on the VPS that keeps copies of the newest."""

    model_config = ConfigDict(hide_input_in_errors=True)
    _block_type_name = "Guardia Backup Store"
    _block_type_slug = "guardia-backup-store"
    _description = "The S3 bucket of a site's backups, with retention and encryption."

    endpoint: HttpUrl | None = Field(default=None, description="Address of the S3 service; empty for Amazon's own.")
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="The bucket; it must exist.")
    prefix: str = Field(
        default="", pattern=r"^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$", description="Folder in the bucket, if any."
    )
    access_key_id: str = Field(min_length=1, max_length=128, pattern=r"^\S+$", description="Access key.")
    secret_access_key: SecretStr = Field(description="Secret key.")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$", description="Region.")
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Whether the bucket is in the path or in the host name."
    )
    part_size: int = Field(default=16, ge=5, le=256, description="MiB of each part of an upload.")
    checksums: Literal["when_required", "when_supported"] = Field(
        default="when_required", description="When S3 checksums are sent; some S3-compatible stores refuse them."
    )
    ca_certificates: Certificates | None = Field(
        default=None, description="PEM text of extra certificate authorities to trust for the endpoint."
    )
    object_lock: int | None = Field(
        default=None, ge=1, le=3650, description="Days for which nobody can delete a backup (object lock, compliance)."
    )
    encryption_key: SecretStr | None = Field(
        default=None, description="32 bytes in Base64: backups are encrypted and signed with it before they leave."
    )
    copies: int = Field(
        default=3, ge=0, le=100, description="Newest backups of each kind that the VPS keeps a copy of, space allowing."
    )
    folder: Folder | None = Field(default=None, description="Where on the VPS; empty: /var/backups/SITE/daily.")
    retention: Retention = Field(default=Retention(), description="Which backups are kept.")
    backup_at: str = Field(
        default="03:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="When the daily backup starts, site's time."
    )
    verify_at: str = Field(
        default="04:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="When the newest backup is proven."
    )
    rpo: int = Field(
        default=26, ge=1, le=24 * 31, description="Hours: a newest backup older than this is an alarm (RPO)."
    )

    # Prefect keeps as a secret what has the type of one, and not what has a validator in it: then stars are stored.
    @field_validator("encryption_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            good = value is None or len(base64.b64decode(value.get_secret_value().strip(), validate=True)) == 32
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise ValueError("is not a key. Make one with `openssl rand -base64 32`, and keep a copy of it elsewhere")
        return value

    # An earlier time of day may be right: a backup at 23:30 is proven at 00:30.
    @model_validator(mode="after")
    def _is_proven_after_it_is_made(self) -> Self:
        if self.verify_at == self.backup_at:
            raise ValueError(
                f"backup_at and verify_at are both {self.verify_at}: the backup of the day before would be proven. "
                "Let verify_at be later by more than a backup takes"
            )
        return self


class OwnScripts(BaseModel):
    """The backup scripts that the site had before Guardia, whose files can still be verified and restored."""

    folder: Folder = Field(default="/var/backups/ferreteria/daily", description="Folder of the .sql.gz files.")
    log: Folder | None = Field(default=None, description="Its log, e.g. /var/log/ferreteria_backup.log.")
    cron_file: Folder | None = Field(default=None, description="Its crontab file, e.g. /etc/cron.d/ferreteria.")
    cron_line: str | None = Field(
        default=None, pattern=r"^[^\x00-\x1f]{9,500}$", description="The line that the file must hold."
    )

    @model_validator(mode="after")
    def _line_has_a_file(self) -> Self:
        if (self.cron_line is None) != (self.cron_file is None):
            raise ValueError("cron_file and cron_line belong together; give both or neither")
        return self


class Drill(BaseModel):
    """Where and within which limits backups are proven by restoring them."""

    host: Host | None = Field(default=None, description="Another machine with Docker and the database's image.")
    cpus: float = Field(default=1.0, gt=0, le=256, description="Processors that a proof may use.")
    memory: int = Field(default=512, ge=128, description="MiB of memory that a proof may use.")
