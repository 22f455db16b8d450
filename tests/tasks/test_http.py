"""The site from outside: what counts as healthy, whose fault silence is, and when it has come back."""

import socket
import threading
import time

import pytest

from blocks.errors import ProberOffline
from blocks.site import Site
from tasks import http
from tasks.http import Answer, Outside
from tests import sample
from tests.web_server import HEALTHY, WebServer

VERDICTS = [
    (200, 200, HEALTHY, True),
    (302, 200, "ok", True),
    (404, 200, "", True),
    (200, 200, '{"database": "connected"}', True),
    (200, 200, "[]", True),
    (200, 200, '{"status": "unhealthy"}', False),
    (200, 204, "", False),
    (200, 500, HEALTHY, False),
    (500, 200, HEALTHY, False),
    (502, 502, "", False),
    (None, 200, HEALTHY, False),
    (200, None, "", False),
]


@pytest.mark.parametrize(("page", "health", "body", "healthy"), VERDICTS)
def test_a_site_is_healthy_if_page_and_health_check_both_say_so(
    page: int | None, health: int | None, body: str, healthy: bool
) -> None:
    seen = Outside(page=Answer(request="HEAD", status=page), health=Answer(request="GET", status=health, body=body))
    assert seen.healthy is healthy
    assert seen.ok is healthy


def site_at(web: WebServer, **changes: object) -> Site:
    return sample.site(url=web.url, host__address="127.0.0.1", host__port=1, controls=[web.url], **changes)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def test_page_and_health_check_are_asked_as_curl_would(web: WebServer) -> None:
    seen = http.verify.fn(site_at(web, health_path="/health?full=1", healthy_in_a_row=1))
    assert sorted(request[:2] for request in web.requests) == [("GET", "/health?full=1"), ("HEAD", "/")]
    assert seen.summary.startswith(f"healthy; HEAD {web.url}/: 200 in 0.0 s; GET {web.url}/health?full=1: 200 in ")


def test_a_site_that_flaps_is_not_healthy(web: WebServer) -> None:
    threading.Timer(0.5, setattr, (web, "health", 502)).start()
    assert not http.verify.fn(site_at(web, healthy_in_a_row=2)).healthy
    assert len(web.requests) == 4


def test_a_fixed_address_is_asked_for_the_sites_own_name(web: WebServer) -> None:
    site = sample.site(url=f"http://tandil.invalid:{web.port}", address="127.0.0.1")
    assert http.observe(site).healthy
    assert {request[2] for request in web.requests} == {f"tandil.invalid:{web.port}"}


def test_a_connection_that_is_closed_without_an_answer_is_a_problem_and_no_error(web: WebServer) -> None:
    web.page = web.health = 0
    seen = http.observe(site_at(web))
    assert not seen.healthy
    assert "closed without an answer" in seen.impact


def test_a_redirect_is_not_followed(web: WebServer) -> None:
    web.page = 301
    http.observe(site_at(web))
    assert len(web.requests) == 2


def test_a_site_that_is_silent_while_the_rest_answers_is_down(web: WebServer) -> None:
    site = site_at(web).model_copy(update={"url": f"http://127.0.0.1:{closed_port()}"})
    seen = http.verify.fn(site)
    assert not seen.healthy
    assert [answer.status for answer in seen.elsewhere] == [200]
    assert "no connection" in seen.summary
    assert seen.ssh_port_open is None


def nowhere(**changes: object) -> Site:
    dead = f"http://127.0.0.1:{closed_port()}"
    return sample.site(url=dead, controls=[dead], host__address="127.0.0.1", **changes)


def test_when_nothing_answers_the_fault_is_our_own_network() -> None:
    with pytest.raises(ProberOffline, match=r"Guardia's own network is down\. Check this machine's network") as caught:
        http.verify.fn(nowhere(host__port=closed_port()))
    assert caught.value.permanent


def test_when_the_ssh_port_answers_it_is_not_our_own_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = http.verify.fn(nowhere(host__port=listener.getsockname()[1]))
    assert seen.ssh_port_open is True
    assert not seen.healthy


def test_a_site_that_answers_anything_is_not_asked_about_elsewhere(web: WebServer) -> None:
    web.page = web.health = 502
    seen = http.verify.fn(site_at(web))
    assert seen.elsewhere == []
    assert len(web.requests) == 2


def test_recovered_is_healthy_several_times_in_a_row(web: WebServer) -> None:
    found = http.recovery.fn(site_at(web, healthy_in_a_row=2), 30)
    assert found.recovered
    assert 1 <= found.seconds < 3
    assert sorted(request[0] for request in web.requests) == ["GET", "GET", "HEAD", "HEAD"]


def test_one_bad_answer_begins_the_count_again(web: WebServer) -> None:
    for after, status in ((0.5, 502), (1.5, 200)):
        threading.Timer(after, setattr, (web, "health", status)).start()
    found = http.recovery.fn(site_at(web, healthy_in_a_row=2), 30)
    assert found.recovered
    assert len(web.requests) == 8


def test_patience_ends(web: WebServer) -> None:
    web.health = 502
    started = time.monotonic()
    found = http.recovery.fn(site_at(web), 1)
    assert not found.recovered
    assert found.summary.startswith("still not healthy after 1 s: NOT healthy; ")
    assert time.monotonic() - started < 3


def test_a_secret_in_a_health_answer_is_no_evidence(web: WebServer) -> None:
    web.body = '{"status": "unhealthy", "error": "postgres://ana:hunter2@db/shop refused"}'
    assert "hunter2" not in http.observe(site_at(web)).text
