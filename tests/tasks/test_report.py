"""Messages and records: the guide's words, and Markdown that no text in it can break."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from markdown_it import MarkdownIt

from blocks.errors import ConfigError
from tasks import report
from tasks.command import Command, Plan
from tasks.masking import MASK
from tasks.report import Case
from tasks.timeline import Entry
from tests import hostile

OPENED = datetime(2026, 3, 1, 3, 4, 5, tzinfo=UTC)
RUN = UUID("01234567-89ab-cdef-0123-456789abcdef")
PLAN = Plan("Reboot the VPS", "vps.test", (Command(("systemctl", "reboot"), changes=True),), "a minute", ("ends X",))


def case(**changes: Any) -> Case:
    said: dict[str, Any] = {
        "run_id": RUN, "playbook": "site-down", "section": "Complete Site Down", "severity": "P1", "site": "tandil",
        "url": "https://tandil.site/", "opened": OPENED, "impact": "GET /health: 502",
    }  # fmt: skip
    return Case(**(said | changes))


CLOSED = case(closed=OPENED + timedelta(seconds=75), outcome="resolved", root_cause="a restart healed it")

MESSAGES = {
    "initial": (case(run_url="http://ui/run"), {}, """\
INCIDENT ALERT - P1

Status: Investigating
Started: 2026-03-01 03:04:05 UTC
Impact: GET /health: 502
Affected: All users

We are investigating and will provide updates every 15 minutes.

Follow it: http://ui/run
"""),
    "update": (CLOSED, {"status": "Fixing", "note": "", "more": True, "actions": ["Restart: done"]}, """\
INCIDENT UPDATE - P1

Status: Fixing
Duration: 75 seconds
Actions Taken:
- Restart: done
ETA Resolution: TBD

Next update in 15 minutes.
"""),
    "resolution": (CLOSED, {"actions": []}, """\
INCIDENT RESOLVED - P1

Resolved At: 2026-03-01 03:05:20 UTC
Total Duration: 75 seconds
Root Cause: a restart healed it
Impact: GET /health: 502

Post-mortem will be shared within 24 hours.
Thank you for your patience.
"""),
    "approval": (case(run_url="http://ui/run"), {"plan": PLAN, "silence": "refused after 60 min."}, f"""\
An approval is needed - P1 site-down on tandil

Reboot the VPS on vps.test:

  systemctl reboot

Cost: a minute
- ends X

If nobody answers: refused after 60 min.

Answer in the Prefect UI with Resume, which a phone shows under ⋮: http://ui/run
or on the command line:
  guardia approve {RUN} --plan {PLAN.hash} --as YOUR-NAME
  guardia approve {RUN} --refuse --plan {PLAN.hash} --as YOUR-NAME --reason "…"

The approval is for exactly this plan ({PLAN.hash}); if it changes meanwhile you are asked again.
"""),
}  # fmt: skip


def test_a_message_that_asks_for_a_choice_names_a_command_for_each() -> None:
    text = report.message(
        "approval", case(), plan=PLAN, silence="", flags=["--choose 'whole restore' ", "--choose rescue "]
    )
    assert f"  guardia approve {RUN} --choose 'whole restore' --plan {PLAN.hash} --as YOUR-NAME\n" in text
    assert f"  guardia approve {RUN} --choose rescue --plan {PLAN.hash} --as YOUR-NAME\n" in text
    assert f"  guardia approve {RUN} --plan" not in text


@pytest.mark.parametrize(("template", "values"), MESSAGES.items(), ids=MESSAGES)
def test_a_message_is_the_guides_template_filled_in(template: Any, values: tuple[Case, dict[str, Any], str]) -> None:
    about, words, text = values
    assert report.message(template, about, **words) == text


def test_the_last_update_says_that_a_person_has_to_take_over() -> None:
    words: dict[str, Any] = {"status": "Identified", "note": "REFUSED: by Ana", "more": False, "actions": []}
    text = report.message("update", CLOSED, **words)
    assert "Actions Taken: none yet" in text
    assert "REFUSED: by Ana\n\nA person has to take over" in text


def test_a_message_masks_what_looks_like_a_secret() -> None:
    assert "hunter2" not in report.message("initial", case(impact="password=hunter2"))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7261, "121 minutes")]
)
def test_a_duration_is_in_seconds_below_two_minutes(seconds: int, words: str) -> None:
    assert case(closed=OPENED + timedelta(seconds=seconds)).duration == words


TIMELINE = [
    Entry(
        at=OPENED, kind="look", what="Verify from outside", outcome="NOT healthy", ok=False, seconds=0.25, text="502"
    ),
    Entry(at=OPENED, kind="command", what="docker compose restart", outcome="exit 0", seconds=3.21, changes=True),
    Entry(at=OPENED, kind="act", what="Restart all services", outcome="done", seconds=3.3, changes=True),
    Entry(at=OPENED, kind="message", what="Ana: resolved", outcome="sent", detail={"template": "resolution"}),
]


def test_a_record_holds_facts_timeline_commands_checklist_and_evidence() -> None:
    about = CLOSED.model_copy(update={"summary": "a restart healed it", "links": [("Sentry", "https://sentry.test/")]})
    assert report.markdown(about, TIMELINE) == (Path(__file__).parent / "record.md").read_text()


def test_what_the_timeline_does_not_show_as_done_is_not_ticked() -> None:
    failed = Entry(kind="message", what="Ana", ok=False, detail={"template": "resolution"})
    assert [item for item, done in report.checklist([failed]) if done] == ["Incident documented in `incidents/` folder"]
    assert ("Communication sent to affected users", True) in report.checklist(TIMELINE)


def test_only_acts_count_as_actions_taken() -> None:
    assert report.actions(TIMELINE) == ["Restart all services: done"]


def outline(text: str) -> list[str]:
    """The skeleton of a Markdown document: its blocks, and HTML if there is any, without the words in them."""
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token.type for block in blocks for token in (block, *(block.children or [])) if token.type not in WORDS]


WORDS = {
    "inline",
    "text",
    "softbreak",
    "hardbreak",
    "code_inline",
    "strong_open",
    "strong_close",
    "em_open",
    "em_close",
}


@given(hostile.markdown, hostile.markdown, hostile.markdown)
def test_no_text_breaks_out_of_its_cell_heading_or_fence(what: str, outcome: str, text: str) -> None:
    def record(what: str, outcome: str, text: str) -> str:
        entries = [
            Entry(at=OPENED, kind="look", what=what, outcome=outcome, text=text),
            Entry(at=OPENED, kind="command", what=what, outcome=outcome),
        ]
        about = case(summary=outcome, impact=what, root_cause=outcome, url=f"https://tandil.site/{what}")
        return report.markdown(about, entries)

    written = record(what, outcome, text or "-")
    assert outline(written) == outline(record("plain", "plain", "plain"))
    # Renderers differ in whether the pipe of `\\|` is escaped, so it must not be there.
    rows = [line for line in written.split("## Evidence")[0].splitlines() if line.startswith("|")]
    assert not any(len(slashes) % 2 == 0 for row in rows for slashes in re.findall(r"(\\+)\|", row))


@pytest.mark.parametrize("secret", ["a|b|c|d", "a  b\\c", "<secret>", "back`tick", "two\nlines"])
def test_a_secret_that_markdown_would_escape_is_masked_all_the_same(secret: str) -> None:
    entries = [Entry(kind="command", what=f"echo {secret}", outcome=secret, text=f"said {secret}")]
    written = report.markdown(case(impact=secret), entries, frozenset({secret}))
    assert written.count(MASK) == 5
    assert secret not in written


@pytest.mark.parametrize("end", ["password:", "token = ", "Authorization:", "-----BEGIN PRIVATE KEY-----"])
def test_a_mask_does_not_eat_the_fence_below_it(end: str) -> None:
    entries = [Entry(kind="look", what="logs", text=end), Entry(kind="look", what="more", text="-")]
    assert outline(report.markdown(case(), entries))[-4:] == [
        "fence", "heading_open", "heading_close", "fence",
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUARDIA_INCIDENTS", str(tmp_path / "deep" / "incidents"))
    return tmp_path / "deep" / "incidents"


def test_a_record_is_never_written_over_that_of_another_incident(folder: Path) -> None:
    other = case(run_id=UUID(int=1))
    assert report.write(case(), f"mine {RUN}") == folder / "2026-03-01-tandil-site-down.md"
    assert report.write(other, f"other {other.run_id}") == folder / "2026-03-01-tandil-site-down-2.md"
    assert report.write(case(), f"mine again {RUN}") == folder / "2026-03-01-tandil-site-down.md"
    assert (folder / "2026-03-01-tandil-site-down.md").read_text() == f"mine again {RUN}"


def test_a_folder_that_cannot_be_written_is_an_error_with_a_cure(folder: Path) -> None:
    folder.parent.write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"record cannot be written.*Set GUARDIA_INCIDENTS"):
        report.write(case(), "")
