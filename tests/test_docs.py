"""The README and docs/ say what is true."""

import base64
import re
import tomllib
from pathlib import Path
from typing import Any

import certifi
import pytest
from prefect import Flow
from pydantic import BaseModel

from blocks import site_file
from blocks.site import GatePolicy, Site
from deployments.catalog import PLAYBOOKS
from deployments.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SITE_FILE = (ROOT / "docs/site-file.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.findall(r"```toml\n(.*?)```", SITE_FILE, re.S)[0]
PICTURES = "docs/images/"

# The sections of the guide that are playbooks, and what the first has besides.
GUIDE = {
    "Complete Site Down": (
        "1. Verify the issue",
        "2. SSH to VPS",
        "3. Check all services",
        "4. Check logs",
        "5. Quick fix - Restart all services",
        "6. If restart doesn't work",
        "7. Last resort - Full reboot",
        "Symptoms",
        "Post-Incident",
        "Severity Levels",
        "Communication Templates",
        "Post-Incident Checklist",
        "Contact Information",
    ),
    "Data Loss / Corruption": (
        "1. STOP ALL WRITES IMMEDIATELY",
        "2. Assess the damage",
        "3. Identify last known good backup",
        "4. Restore from backup",
        "5. Verify restoration",
        "6. Resume service",
    ),
    "Database Connection Lost": (
        "1. Check database container",
        "2. Restart database",
        "3. If database won't start, check logs",
        "4. Common issues: out of disk space",
        "4. Common issues: wrong permissions",
        "5. Restore from backup if database is corrupted",
    ),
    "Backup Failed": (
        "1. Check backup logs",
        "2. Run manual backup",
        "3. Verify backup",
        "4. Fix cron if needed",
    ),
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the example, and where it says that its secrets are."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GUARDIA_SMTP_PASSWORD", "hunter2")
    monkeypatch.setenv("GUARDIA_DB_PASSWORD", "hunter2")
    monkeypatch.setenv("GUARDIA_S3_SECRET", "hunter2")
    monkeypatch.setenv("GUARDIA_ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode())
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/guardia_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n…\n")
    (tmp_path / "invariants.sql").write_text("-- name: no sale is free\nSELECT id FROM public.sale WHERE total = 0;\n")
    (tmp_path / "ca.pem").write_text(Path(certifi.where()).read_text())
    return tmp_path


def _site(folder: Path, text: str) -> Site:
    (folder / "site.toml").write_text(text)
    return site_file.read(folder / "site.toml")


def _uncommented(text: str) -> str:
    """The example with every setting given; what follows is commentary."""
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.M)


def _settings(model: type[BaseModel]) -> set[str]:
    """The names of a model's settings and of those in them."""
    inner = [each for field in model.model_fields.values() for each in site_file._models(field.annotation)]
    return set(model.model_fields) - site_file._PREFECT_KEYS | {name for each in inner for name in _settings(each)}


def test_the_example_of_a_site_file_can_be_read(secrets: Path) -> None:
    site = _site(secrets, EXAMPLE)
    assert (site.name, site.host.address) == ("tandil", "tandil.site")
    assert site.mailbox and site.mailbox.password.get_secret_value() == "hunter2"


def test_what_the_example_shows_commented_out_can_be_read_too(secrets: Path) -> None:
    everything = _site(secrets, _uncommented(EXAMPLE))
    assert everything.ca_certificates and everything.gates.escalate_after == 300


def test_what_the_example_shows_as_a_default_is_the_default(secrets: Path) -> None:
    bucket = {"endpoint", "ca_certificates", "object_lock", "encryption_key", "folder"}
    inner = {"database": {"invariants"}, "backups": bucket, "drill": {"host"}}
    examples = dict.fromkeys(("address", "ca_certificates", "sentry_url", "github_url", "own_scripts"), True) | inner
    silent = _site(secrets, EXAMPLE).model_dump(exclude=examples)
    silent["gates"] |= {"escalate_after": 300, "refuse_after": 3600}  # as for a P1; the default is by severity
    assert _site(secrets, _uncommented(EXAMPLE)).model_dump(exclude=examples) == silent


@pytest.mark.parametrize("setting", sorted(_settings(Site)))
def test_every_setting_is_in_the_example(setting: str) -> None:
    assert re.search(rf"(^|[\s\[{{.]){setting}( =|\])", _uncommented(EXAMPLE), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    known = {name for names in app for name in ([names] if isinstance(names, str) else names)}
    named = set(re.findall(r"(?:^ +|`|&& )guardia ([a-z][a-z-]*)", page.read_text(), re.M))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_playbook_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"guardia (?:respond|plan) ([a-z][a-z-]*)|deployments/name/([a-z-]+)/", page.read_text())
    assert {respond or rest for respond, rest in named} <= set(PLAYBOOKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if "://" in target or path.startswith(PICTURES):
            continue
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        headings = [re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
                    for line in re.findall(r"^#+ (.*)$", file.read_text() if heading else "", re.M)]  # fmt: skip
        assert not heading or heading in headings, f"{page.name} links to {target}"


def test_every_file_and_function_that_the_readme_maps_the_guide_to_exists() -> None:
    table = README.partition("## From the guide to the code")[2].partition("\n## ")[0]
    code = "\n".join(file.read_text() for part in ("flows", "tasks", "blocks") for file in (ROOT / part).glob("*.py"))
    for path in re.findall(r"\b(?:flows|tasks|blocks|deployments)/[\w/]+\.\w+", table):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)*|[A-Z]+(?:_[A-Z]+)+)`", table):
        known = rf"^ *(def )?{name}\b"
        assert re.search(known, code, re.M), name


@pytest.mark.parametrize(("section", "step"), [(section, step) for section in GUIDE for step in GUIDE[section]])
def test_the_readme_says_what_serves_each_step_of_the_guide(section: str, step: str) -> None:
    table = README.partition(f"\n{section}, in [flows/")[2].partition(", in [flows/")[0]
    assert re.search(rf"^\| {re.escape(step)}\b", table, re.M)


def test_the_sections_that_the_readme_maps_are_those_of_the_playbooks() -> None:
    documented = {(flow.fn.__module__, section) for flow in PLAYBOOKS.values() for section in [_section(flow)]}
    for section in GUIDE:
        (file,) = re.findall(rf"^{re.escape(section)}, in \[(flows/\w+)\.py\]", README, re.M)
        assert (file.replace("/", "."), section) in documented


def _section(flow: Flow[..., Any]) -> str:
    """The guide's section that a playbook's description begins with."""
    return (flow.description or "").partition(" (P")[0]


@pytest.mark.parametrize("gate", sorted(set(GatePolicy.model_fields) - {"escalate_after", "refuse_after"}))
def test_every_gate_is_explained_with_its_default(gate: str) -> None:
    asks = {"ask": "asks", "none": "does not ask"}[GatePolicy.model_fields[gate].default]
    assert re.search(rf"^\| `{gate}` \| .* \| {asks} \|$", (ROOT / "docs/approvals.md").read_text(), re.M)


def test_the_example_holds_no_secret() -> None:
    text = tomllib.loads(EXAMPLE)
    assert isinstance(text["host"]["private_key"], dict) and isinstance(text["mailbox"]["password"], dict)
