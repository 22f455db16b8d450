"""Chromium without a screen, for the Prefect UI of one server: all else on the network is refused to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, Route, StorageState, ViewportSize, sync_playwright

from tests.lab.home import LabError

CHROMIUM = Path("/usr/bin/chromium")
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
_PATIENCE = 60_000  # milliseconds for an element to show: the server and the machine have two cores with others


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium; LabError if there is none."""
    if not CHROMIUM.exists():
        raise LabError(f"there is no {CHROMIUM}: install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, ui: str, *, phone: bool = False) -> Page:
    """An empty page that reaches `ui`, a URL without a path, and nothing else; with `phone`, on a narrow screen."""
    light: StorageState = {  # as the switch on the UI's page of settings leaves it
        "origins": [{"origin": ui, "localStorage": [{"name": "color-scheme", "value": '"light"'}]}]
    }
    context = browser.new_context(
        viewport=PHONE if phone else DESKTOP, is_mobile=phone, has_touch=phone, storage_state=light
    )
    context.set_default_timeout(_PATIENCE)
    context.route(lambda url: not url.startswith(f"{ui}/"), _refuse)
    return context.new_page()


def field(form: Locator, label: str) -> Locator:
    """The field of a Prefect form with this label: its words, its input and what is wrong with it."""
    exactly = form.page.locator(".schema-form-property__label").get_by_text(label, exact=True)
    return form.locator(".schema-form-property", has=exactly)


def choices(field: Locator) -> list[str]:
    """What a field offers to choose from; leaves the list open."""
    # A click on the field's middle opens the list and closes it at once; one on its arrows only opens it.
    field.locator(".p-select-button__icon").click()
    options = field.page.locator(".p-select-option")
    options.first.wait_for()
    return options.all_inner_texts()


def choose(field: Locator, option: str) -> None:
    """Choose from what a field offers."""
    if option not in choices(field):
        raise AssertionError(f"{option!r} is not offered")
    field.page.locator(".p-select-option").get_by_text(option, exact=True).click()


def submit(form: Locator, path: str) -> None:
    """Press Submit until the server takes what the form sends to an address that ends with `path`.

    Prefect's SQLite server answers 503 now and then when several write at once. The UI says so and leaves the form as
    it was, for the person to press again.
    """
    for _ in range(5):
        with form.page.expect_response(lambda response: response.url.endswith(path)) as answered:
            form.get_by_role("button", name="Submit").click()
        if answered.value.status != HTTPStatus.SERVICE_UNAVAILABLE:
            break


def _refuse(route: Route) -> None:
    route.abort()
