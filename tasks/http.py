"""Look at the site from outside, as its users do. Serves "Verify the issue" and every check that an act worked."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from pydantic import BaseModel

from blocks.errors import ProberOffline
from blocks.site import Site
from tasks.masking import mask
from tasks.steps import look

TIMEOUT = httpx.Timeout(10, connect=5)  # seconds; a site that needs longer is down for its users


class Answer(BaseModel):
    """What one request got: a status, or why there was none. `seconds` until then."""

    request: str
    status: int | None = None
    problem: str = ""
    body: str = ""
    seconds: float = 0

    @property
    def words(self) -> str:
        """For a timeline: request, status or problem, time."""
        return f"{self.request}: {self.status or self.problem} in {self.seconds:.1f} s"


class Outside(BaseModel):
    """The site as seen from outside. `healthy` only if the page and the health check both say so."""

    page: Answer
    health: Answer
    elsewhere: list[Answer] = []
    ssh_port_open: bool | None = None

    @property
    def healthy(self) -> bool:
        """The page is served and the health check answers 200 without contradicting itself."""
        served = self.page.status is not None and self.page.status < httpx.codes.INTERNAL_SERVER_ERROR
        return served and self.health.status == httpx.codes.OK and _says_healthy(self.health.body)

    @property
    def ok(self) -> bool:
        """Whether the timeline shows it as good news."""
        return self.healthy

    @property
    def impact(self) -> str:
        """What users notice, for messages."""
        return f"{self.page.words}; {self.health.words}"

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        words = [self.page.words, self.health.words, *(answer.words for answer in self.elsewhere)]
        return ("healthy; " if self.healthy else "NOT healthy; ") + "; ".join(words)

    @property
    def text(self) -> str:
        """Evidence: what the health check answered."""
        return mask(self.health.body)


class Recovery(BaseModel):
    """Whether the site came back, and how many seconds that took."""

    recovered: bool
    seconds: float
    last: Outside

    @property
    def ok(self) -> bool:
        """Whether the timeline shows it as good news."""
        return self.recovered

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.recovered:
            return f"healthy from outside, several times in a row, after {self.seconds:.0f} s"
        return f"still not healthy after {self.seconds:.0f} s: {self.last.summary}"


@look("Verify from outside")
def verify(site: Site) -> Outside:
    """HEAD of the page and GET of the health check; if neither is answered, whether it is only our own network.

    A site is healthy only if it is several times in a row: one that flaps is down for most of its users. Raises
    ProberOffline if nothing elsewhere answers either. (Complete Site Down, step 1.)
    """
    seen = observe(site)
    for _ in range(site.healthy_in_a_row - 1):
        if not seen.healthy:
            break
        time.sleep(1)
        seen = observe(site)
    if seen.page.status or seen.health.status:
        return seen
    with httpx.Client(timeout=TIMEOUT) as client:
        elsewhere = [_ask(client, "HEAD", str(url)) for url in site.controls]
    reachable = any(answer.status for answer in elsewhere)
    open_port = None if reachable else _port_open(site)
    if not reachable and not open_port:
        raise ProberOffline(
            f"Neither {site.url} nor anything else answers "
            f"({'; '.join(answer.words for answer in elsewhere)}): Guardia's own network is down.",
            "Check this machine's network, or set `controls` in the site file to addresses that it can reach.",
        )
    return seen.model_copy(update={"elsewhere": elsewhere, "ssh_port_open": open_port})


@look("Wait for the site to be healthy from outside")
def recovery(site: Site, patience: int) -> Recovery:
    """Look once a second until the site is healthy several times in a row, or `patience` seconds have passed."""
    started = time.monotonic()
    in_a_row = 0
    while True:
        tick = time.monotonic()
        seen = observe(site)
        in_a_row = in_a_row + 1 if seen.healthy else 0
        waited = time.monotonic() - started
        if in_a_row >= site.healthy_in_a_row or (waited >= patience and not in_a_row):
            return Recovery(recovered=bool(in_a_row), seconds=waited, last=seen)
        time.sleep(max(0.0, 1 - (time.monotonic() - tick)))


def observe(site: Site) -> Outside:
    """One pair of requests side by side: a site that is down makes each wait."""
    with _client(site) as client, ThreadPoolExecutor(2) as pool:
        page = pool.submit(_ask, client, "HEAD", str(site.url), site)
        health = pool.submit(_ask, client, "GET", site.health_url, site)
        return Outside(page=page.result(), health=health.result())


def _client(site: Site) -> httpx.Client:
    import ssl

    context = ssl.create_default_context()
    if site.ca_certificates:
        context.load_verify_locations(cadata=site.ca_certificates)
    return httpx.Client(timeout=TIMEOUT, verify=context, headers={"User-Agent": "guardia"})


def _ask(client: httpx.Client, method: str, url: str, site: Site | None = None) -> Answer:
    started = time.monotonic()
    asked = f"{method} {url}"
    target, headers, extensions = _addressed(url, site)
    try:
        response = client.request(method, target, headers=headers, extensions=extensions)
    except httpx.HTTPError as error:
        return Answer(request=asked, problem=_problem(error), seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    return Answer(request=asked, status=response.status_code, body=response.text[:2000], seconds=seconds)


def _addressed(url: str, site: Site | None) -> tuple[httpx.URL, dict[str, str], dict[str, str]]:
    """Connect to the site's fixed address but speak to its name, as `curl --resolve` does."""
    parsed = httpx.URL(url)
    if site is None or site.address is None:
        return parsed, {}, {}
    return parsed.copy_with(host=str(site.address)), {"Host": parsed.netloc.decode()}, {"sni_hostname": parsed.host}


def _problem(error: httpx.HTTPError) -> str:
    kinds: dict[type[httpx.HTTPError], str] = {
        httpx.ConnectTimeout: "no connection in time",
        httpx.ReadTimeout: "connected, but no answer in time",
        httpx.ConnectError: "no connection",
        httpx.RemoteProtocolError: "the connection was closed without an answer",
        httpx.ReadError: "the connection broke",
    }
    kind = kinds.get(type(error), type(error).__name__)
    return f"{kind} ({error})" if str(error) else kind


def _port_open(site: Site) -> bool:
    try:
        socket.create_connection((site.host.address, site.host.port), timeout=site.host.connect_timeout).close()
    except OSError:
        return False
    return True


def _says_healthy(body: str) -> bool:
    """A health check that answers 200 with {"status": "unhealthy"} is not healthy; other bodies are not judged."""
    try:
        answer = json.loads(body)
    except ValueError:
        return True
    return not isinstance(answer, dict) or answer.get("status", "healthy") == "healthy"
