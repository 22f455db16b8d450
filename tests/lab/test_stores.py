"""The proxy before the store fails in the ways that it says, and passes everything again."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, EndpointConnectionError

from tests.lab import stores
from tests.lab.seaweed import Store

pytestmark = pytest.mark.lab
MEGABYTE = b"x" * (1 << 20)


@pytest.fixture
def proxy(s3_store: Store) -> Iterator[stores.Proxy]:
    with stores.proxy(s3_store) as proxy:
        yield proxy


def answer(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_object_goes_through_the_proxy_with_its_signature_and_comes_back(proxy: stores.Proxy) -> None:
    stores.overwrite(proxy.store, "proxy/whole", MEGABYTE)
    assert stores.fetch(proxy.store, "proxy/whole") == MEGABYTE
    assert proxy.uploaded > len(MEGABYTE)
    assert stores.keys(proxy.store, "proxy/") == ["proxy/whole"]
    stores.lose(proxy.store, "proxy/whole")
    assert stores.keys(proxy.store, "proxy/") == []


def test_a_store_that_refuses_connections_is_back_at_the_same_port(proxy: stores.Proxy) -> None:
    proxy.refuse()
    with pytest.raises(EndpointConnectionError):
        stores.keys(proxy.store)
    proxy.well()
    stores.keys(proxy.store)


def test_a_slow_store_takes_the_time_that_its_rate_says(proxy: stores.Proxy) -> None:
    proxy.slow(500_000)
    began = time.monotonic()
    stores.overwrite(proxy.store, "proxy/slow", MEGABYTE)
    assert 1.8 < time.monotonic() - began < 6


def test_an_upload_is_cut_once_at_the_byte_and_the_next_one_passes(proxy: stores.Proxy) -> None:
    proxy.cut_after(300_000)
    before = proxy.uploaded
    with pytest.raises((ConnectionClosedError, BotoCoreError)):
        stores.overwrite(proxy.store, "proxy/cut", MEGABYTE)
    assert 300_000 < proxy.uploaded - before < 300_000 + stores.PIECE + 1
    assert stores.keys(proxy.store, "proxy/cut") == []
    stores.overwrite(proxy.store, "proxy/cut", MEGABYTE)


def test_a_store_that_dies_in_an_upload_stays_dead_and_keeps_the_unfinished_upload(proxy: stores.Proxy) -> None:
    client = stores.s3(proxy.store)
    upload = client.create_multipart_upload(Bucket=proxy.store.bucket, Key="proxy/dead")["UploadId"]
    proxy.die_after(300_000)
    part = {"Bucket": proxy.store.bucket, "Key": "proxy/dead", "UploadId": upload}
    with pytest.raises(BotoCoreError):
        client.upload_part(**part, PartNumber=1, Body=MEGABYTE)
    with pytest.raises(EndpointConnectionError):
        client.upload_part(**part, PartNumber=1, Body=MEGABYTE)
    proxy.well()
    assert stores.unfinished(proxy.store, "proxy/") == ["proxy/dead"]
    client.abort_multipart_upload(**part)
    assert stores.unfinished(proxy.store, "proxy/") == []


def test_a_busy_store_answers_503_as_often_as_it_was_told(proxy: stores.Proxy) -> None:
    proxy.busy(times=2)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            stores.overwrite(proxy.store, "proxy/busy", MEGABYTE)
        assert answer(error) == ("SlowDown", 503)
    stores.overwrite(proxy.store, "proxy/busy", MEGABYTE)
    assert proxy.answered == 2


def test_a_skewed_clock_is_answered_as_the_real_store_does(
    s3_store: Store, proxy: stores.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.skew_clock()
    with pytest.raises(ClientError) as simulated:
        stores.keys(proxy.store)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(ClientError) as real:
        stores.keys(s3_store)
    assert answer(simulated) == answer(real) == ("RequestTimeTooSkewed", 403)


def test_wrong_credentials_are_refused_by_the_store_itself(proxy: stores.Proxy) -> None:
    with pytest.raises(ClientError) as error:
        stores.keys(replace(proxy.store, secret="another"))
    assert answer(error) == ("SignatureDoesNotMatch", 403)
