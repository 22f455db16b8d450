"""The practice site's files, as far as they can be judged without an engine."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.site.history import RELEASES, SOURCE, write_history
from tests.lab.site.invariants import invariants

SITE = SOURCE.parent
SCRIPTS = sorted(SITE.rglob("*.sh"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((SOURCE / "docker-compose.prod.yml").read_text())["services"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    write_history(tmp_path / "ferreteria")
    return tmp_path / "ferreteria"


def git(folder: Path, *argv: str) -> str:
    return subprocess.run(["git", "-C", folder, *argv], check=True, capture_output=True, text=True).stdout.strip()


def env_prod() -> dict[str, str]:
    return dict(line.split("=", 1) for line in (SITE / "env.prod").read_text().splitlines())


def test_the_history_has_every_release_in_order(checkout: Path) -> None:
    assert git(checkout, "tag", "--sort=creatordate").split() == [r.tag for r in RELEASES]
    assert git(checkout, "describe", "--tags", "--exact-match") == "v1.2.0"
    assert git(checkout, "describe", "--tags", "--abbrev=0", "HEAD^") == "v1.1.0"


def test_the_history_ends_with_exactly_the_folder(checkout: Path) -> None:
    assert git(checkout, "status", "--porcelain", "--ignored") == ""
    subprocess.run(["diff", "-r", "-x", ".git", "-x", "__pycache__", "-x", ".*_cache", SOURCE, checkout], check=True)
    modes = git(checkout, "ls-files", "--stage", "infra/scripts/rollback.sh")
    assert modes.startswith("100755")


def test_the_same_folder_gives_the_same_commits(checkout: Path, tmp_path: Path) -> None:
    write_history(tmp_path / "again")
    assert git(tmp_path / "again", "rev-parse", "--all") == git(checkout, "rev-parse", "--all")


def test_a_visitor_sees_which_release_runs(checkout: Path) -> None:
    seen = [git(checkout, "show", f"{r.tag}:web/VERSION") for r in RELEASES]
    pages = {git(checkout, "show", f"{r.tag}:web/shop/templates/base.html") for r in RELEASES}
    assert [f"v{version}" for version in seen] == [r.tag for r in RELEASES]
    assert len(pages) == len(RELEASES)


def test_no_release_changes_the_schema(checkout: Path) -> None:
    assert git(checkout, "diff", "--name-only", "v1.0.0", "v1.2.0", "--", "db") == ""


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        write_history(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_parses_and_may_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111


def test_cron_runs_a_script_that_exists() -> None:
    minute, hour, *_, user, command = (SITE / "cron").read_text().splitlines()[-1].split(maxsplit=6)
    script, log = command.split(" >> ")
    assert (minute, hour, user, log) == ("0", "3", "root", "/var/log/ferreteria_backup.log 2>&1")
    assert (SOURCE / Path(script).relative_to("/root/ferreteria")).exists()


def test_the_compose_file_has_the_services_that_the_guide_names() -> None:
    assert set(SERVICES) == {"nginx", "web", "db", "certbot"}


def test_only_nginx_is_published() -> None:
    assert {name: s["ports"] for name, s in SERVICES.items() if "ports" in s} == {"nginx": ["80:80", "443:443"]}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_comes_back_by_itself_under_a_name_of_its_own(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["driver"] == "json-file"
    assert service["container_name"] != name


def test_the_health_of_web_and_db_is_watched() -> None:
    assert {name for name, s in SERVICES.items() if "healthcheck" in s} == {"web", "db"}


def test_a_release_builds_offline() -> None:
    lines = (SOURCE / "web/Dockerfile").read_text().splitlines()
    assert {line.split()[0] for line in lines} <= {"#", "FROM", "COPY", "USER", "EXPOSE", "CMD"}


def test_secrets_are_beside_the_checkout_not_in_it(checkout: Path) -> None:
    assert ".env.prod" in (checkout / ".gitignore").read_text().split()
    secrets = [value for name, value in env_prod().items() if "PASSWORD" in name or "KEY" in name]
    assert len(secrets) == 3
    for secret in secrets:
        assert subprocess.run(["git", "-C", checkout, "grep", "-q", secret], check=False).returncode == 1


def test_env_prod_has_what_the_guide_and_the_shop_read() -> None:
    smtp = {f"SMTP_{part}" for part in ("HOST", "PORT", "USER", "PASSWORD", "FROM")}
    assert set(env_prod()) == smtp | {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "SECRET_KEY"}


def test_every_invariant_is_one_query() -> None:
    assert len(invariants()) == 9
    for query in invariants().values():
        assert query.startswith("SELECT")
        assert ";" not in query
