"""The Prefect UI as the person on call meets it: a form starts the playbook, a form approves, a page tells the story.

The pictures of the documentation are what this test sees:

    GUARDIA_SCREENSHOTS=docs/images .venv/bin/python -m pytest tests/lab/test_browser.py
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.lab import faults
from tests.lab.browser import choices, choose, chromium, field, new_page, submit
from tests.lab.home import LabError
from tests.lab.outside import see
from tests.lab.served import SITE, Guardia, served
from tests.lab.vps import PracticeVps

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

QUESTION = f"Reboot the VPS on {SITE} (127.0.0.1)?"
COST = "Everything on this machine is down for a minute or more."
SILENCE = "Bruno is asked after 5 min; after 60 min it counts as refused"
RUN = 150_000  # milliseconds until a run waits or has ended


@pytest.fixture
def guardia(vps: PracticeVps, tmp_path: Path) -> Iterator[Guardia]:
    with served(vps, tmp_path) as running:
        yield running


@pytest.fixture
def browser() -> Iterator[Browser]:
    try:
        with chromium() as running:
            yield running
    except LabError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("GUARDIA_SCREENSHOTS", tmp_path)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


FORMS = {
    "guardia-host": ["Address", "Port", "User", "Private Key", "Host Key", "An unknown or changed key is refused"],
    "guardia-on-call": ["Name", "Channels", "Asked when the primary does not answer", "Told of P1 incidents"],
    "guardia-mailbox": ["Host", "Port", "Security", "Password", "Sender"],
    "guardia-site": ["Url", "Health Path", "Folder", "Compose File", "Services", "Which acts wait for a person"],
}


def test_what_the_operator_configures_is_a_form_each(browser: Browser, guardia: Guardia) -> None:
    page = new_page(browser, guardia.ui)
    for block, words in FORMS.items():
        page.goto(f"{guardia.ui}/blocks/catalog/{block}/create")
        for each in words:
            expect(page.locator("form")).to_contain_text(each)
        expect(page.get_by_role("button", name="Create")).to_be_enabled()


def test_a_wedged_vps_is_healed_through_the_ui_alone(
    browser: Browser, vps: PracticeVps, guardia: Guardia, pictures: Path
) -> None:
    faults.inject(vps, "docker-wedged")
    boot = vps.boot_id()
    page = new_page(browser, guardia.ui)

    open_run_form(page, guardia)
    page.screenshot(path=pictures / "run-form.png")
    start(page)
    expect(state(page)).to_have_text("Suspended", timeout=RUN)
    assert vps.boot_id() == boot

    page.get_by_role("button", name="Resume").click()
    form = page.get_by_role("dialog")
    read_question(form)
    page.screenshot(path=pictures / "approval.png")
    refuse_an_empty_answer(form)
    expect(state(page)).to_have_text("Suspended")
    phone = new_page(browser, guardia.ui, phone=True)
    read_question_on_a_phone(phone, page.url)
    phone.screenshot(path=pictures / "approval-phone.png")

    approve(form)
    send_to_a_busy_server(form)
    submit(form, "/resume")
    expect(state(page)).to_have_text("Resolved", timeout=RUN)
    assert vps.boot_id() != boot
    assert see(vps.https_port, vps.ca_file).healthy

    page.set_viewport_size({"width": 1600, "height": 1600})  # the UI wraps no table
    timeline = read_incident(page, guardia)
    timeline.screenshot(path=pictures / "incident.png")


def open_run_form(page: Page, guardia: Guardia) -> None:
    """From the list of deployments to the form, which explains itself."""
    page.goto(f"{guardia.ui}/deployments")
    row = page.get_by_role("row").filter(has_text="site-down")
    row.get_by_role("link", name="guardia", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    form = page.locator("form")
    expect(field(form, "site")).to_contain_text("Which site to look at.")
    assert choices(field(form, "site")) == [SITE]
    page.keyboard.press("Escape")
    mode = field(form, "mode (Optional)")
    expect(mode).to_contain_text("respond heals it and asks before anything that can hurt.")
    expect(mode).to_contain_text("plan only looks and shows what it would run.")
    assert choices(mode) == ["respond", "plan"]
    page.keyboard.press("Escape")
    field(form, "reason (Optional)").get_by_role("textbox").fill("Customers get 502 since midnight")


def start(page: Page) -> None:
    """Send the form, and open the only run on the page that it leads to."""
    submit(page.locator("form"), "/create_flow_run")
    page.locator("a[href*='/runs/flow-run/']").first.click()


def state(page: Page) -> Locator:
    """The state that stands below the run's name."""
    return page.locator(".page-heading-flow-run .state-badge")


def read_question(form: Locator) -> None:
    """What decides can be read without scrolling; the rest is there."""
    expect(form.get_by_role("heading", name=QUESTION)).to_be_in_viewport(ratio=1)
    expect(form.get_by_text(COST)).to_be_in_viewport(ratio=1)
    expect(form.get_by_text("systemctl reboot", exact=True)).to_be_in_viewport(ratio=1)
    expect(form).to_contain_text(SILENCE)
    for label in ("Decision", "Your name", "Why (Optional)"):
        expect(field(form, label)).to_be_in_viewport(ratio=1)
    expect(field(form, "Decision")).to_contain_text("refuse, or no answer, ends the playbook")


def refuse_an_empty_answer(form: Locator) -> None:
    """The UI takes no answer without a decision and a name."""
    form.get_by_role("button", name="Submit").click()
    expect(field(form, "Decision")).to_contain_text("is a required property")
    expect(field(form, "Your name")).to_contain_text("is a required property")


def read_question_on_a_phone(phone: Page, run: str) -> None:
    """The same on a narrow screen, where Resume is in a menu."""
    phone.goto(run)
    expect(state(phone)).to_have_text("Suspended")
    phone.locator(".page-heading-flow-run .p-icon-button-menu").click()
    phone.get_by_text("Resume", exact=True).click()
    read_question(phone.get_by_role("dialog"))


def approve(form: Locator) -> None:
    """Say yes, by name; nothing is sent yet."""
    choose(field(form, "Decision"), "approve")
    field(form, "Your name").get_by_role("textbox").fill("Ana")


def send_to_a_busy_server(form: Locator) -> None:
    """An answer that was not taken says so, and stays in the form to be sent again."""
    form.page.route("**/resume", lambda route: route.fulfill(status=503), times=1)
    form.get_by_role("button", name="Submit").click()
    expect(form.page.get_by_text("Failed to resume flow run").first).to_be_visible()
    expect(field(form, "Decision")).to_contain_text("approve")
    expect(field(form, "Your name").get_by_role("textbox")).to_have_value("Ana")


def read_incident(page: Page, guardia: Guardia) -> Locator:
    """The newest version of the incident's page tells what happened, in the table returned, and what is left to do."""
    page.goto(f"{guardia.ui}/artifacts/key/incident-{SITE}-site-down")
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    timeline = page.locator(".p-table", has=page.get_by_role("columnheader", name="time (UTC)")).first
    expect(timeline.get_by_text("started because: Customers get 502 since midnight")).to_have_count(1)
    for did, came_of_it in {
        "answered Ana: approve Reboot the VPS": "",
        "did Reboot the VPS": "SSH and Docker back",
        "closed: resolved": "a reboot healed it",
    }.items():
        expect(timeline.get_by_role("row").filter(has_text=did)).to_contain_text(came_of_it)
    expect(page.get_by_role("heading", name="Post-incident checklist")).to_be_visible()
    expect(page.get_by_role("checkbox", name="Communication sent to affected users")).to_be_checked()
    expect(page.get_by_role("checkbox", name="Root cause analysis completed")).not_to_be_checked()
    return timeline
