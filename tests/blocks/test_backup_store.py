"""What a bucket's settings accept, and what they refuse."""

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.backup_store import BackupStore, Drill, OwnScripts, Retention
from tests import sample
from tests.stored import KEY

GOOD: dict[str, Any] = {"bucket": "guardia", "access_key_id": "a", "secret_access_key": "hunter2"}


def test_a_bucket_and_its_keys_are_enough() -> None:
    found = BackupStore.model_validate(GOOD)
    assert (found.endpoint, found.encryption_key, found.retention) == (None, None, Retention())


ACCEPTED = [
    ("prefix", "backups/shop_1"),
    ("endpoint", "http://127.0.0.1:8333"),
    ("encryption_key", KEY),
    ("encryption_key", KEY + "\n"),  # as it is read from a file
    ("folder", "/var/backups/tandil"),
    ("verify_at", "00:30"),  # past midnight, for a backup before it
]


@pytest.mark.parametrize(("field", "value"), ACCEPTED)
def test_a_good_value_is_taken(field: str, value: Any) -> None:
    assert getattr(BackupStore.model_validate(GOOD | {field: value}), field) is not None


REFUSED = [
    ("bucket", "Guardia", "pattern"),
    ("bucket", "g", "pattern"),
    ("bucket", "a/b", "pattern"),
    ("prefix", "/x", "pattern"),
    ("prefix", "x/", "pattern"),
    ("prefix", "x//y", "pattern"),
    ("endpoint", "s3.tandil.site", "URL"),
    ("access_key_id", "a b", "pattern"),
    ("region", "us east", "pattern"),
    ("addressing", "host", "'auto', 'path' or 'virtual'"),
    ("part_size", 4, "greater than or equal to 5"),
    ("checksums", "never", "'when_required' or 'when_supported'"),
    ("object_lock", 0, "greater than or equal to 1"),
    ("encryption_key", "correct horse", "openssl rand -base64 32"),
    ("encryption_key", base64.b64encode(bytes(31)).decode(), "openssl rand -base64 32"),
    ("encryption_key", KEY[:-1], "openssl rand -base64 32"),
    ("ca_certificates", "no certificate", "certificate"),
    ("folder", "/backups", "two folders deep"),
    ("folder", "var/backups", "absolute path"),
    ("folder", "/var/../etc", r"without '\.\.'"),
    ("retention", {"daily": 0}, "greater than or equal to 1"),
    ("retention", {"proven": 0}, "greater than or equal to 1"),
    ("backup_at", "24:00", "pattern"),
    ("backup_at", "3:00", "pattern"),
    ("verify_at", "03:60", "pattern"),
    ("verify_at", "03:00", "both 03:00: the backup of the day before would be proven"),
    ("backup_at", "04:00", "both 04:00"),
    ("rpo", 0, "greater than or equal to 1"),
]


@pytest.mark.parametrize(("field", "value", "why"), REFUSED)
def test_a_bad_value_is_refused_with_the_reason(field: str, value: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        BackupStore.model_validate(GOOD | {field: value})


def test_an_error_about_the_encryption_key_does_not_show_it() -> None:
    with pytest.raises(ValidationError) as caught:
        BackupStore.model_validate(GOOD | {"encryption_key": "correct horse"})
    assert "correct horse" not in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    found = BackupStore.model_validate(GOOD | {"encryption_key": KEY})
    shown = repr(found) + str(found) + found.model_dump_json()
    assert "hunter2" not in shown and KEY not in shown


def test_a_cron_line_needs_its_file() -> None:
    with pytest.raises(ValidationError, match="give both or neither"):
        OwnScripts(cron_line="0 3 * * * root /root/backup_db.sh")
    assert OwnScripts(cron_line="0 3 * * * root /root/backup_db.sh", cron_file="/etc/cron.d/ferreteria").cron_line


def test_a_proof_has_limits() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Drill(cpus=0)
    with pytest.raises(ValidationError, match="greater than or equal to 128"):
        Drill(memory=64)


def test_a_bucket_without_a_database_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"\[backups\] needs a \[database\]"):
        sample.site(backups=GOOD)
