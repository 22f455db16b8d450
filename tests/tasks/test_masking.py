"""No secret is left in what was masked, and masking takes no longer than the text is long."""

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.masking import MASK, env_secrets, mask

SHOWN = {
    "postgres://ana:hunter2@db/shop": f"postgres://ana:{MASK}@db/shop",
    "postgres://ana:p@ss/w@db/shop": f"postgres://ana:{MASK}@db/shop",
    "password=hunter2 user=ana": f"password={MASK} user=ana",
    "SECRET_KEY: 'a, b; c' # x": f"SECRET_KEY: '{MASK}' # x",
    "SMTP_PASSWORD=a,b;c&d": f"SMTP_PASSWORD={MASK}",
    '{"api-key": "a\\"b", "user": "ana"}': f'{{"api-key": "{MASK}", "user": "ana"}}',
    r'"{\"token\": \"abc\", \"n\": 1}"': rf'"{{\"token\": \"{MASK}\", \"n\": 1}}"',
    "ALTER ROLE ana WITH PASSWORD 'hun ter2';": f"ALTER ROLE ana WITH PASSWORD '{MASK}';",
    "Authorization: Bearer abc.def-g": f"Authorization: Bearer {MASK}",
    "authorization: Basic YTpi": f"authorization: Basic {MASK}",
    "sent Bearer abcdefghijklmnop== on": f"sent Bearer {MASK} on",
    "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nlater": (
        f"-----BEGIN RSA PRIVATE KEY-----{MASK}-----END RSA PRIVATE KEY-----\nlater"
    ),
    "-----BEGIN PRIVATE KEY-----\nMII\ncut off": f"-----BEGIN PRIVATE KEY-----{MASK}",
    "password:\nnext line": "password:\nnext line",
    "Passwords are reset; the token ring too": "Passwords are reset; the token ring too",
    "GET https://tandil.site:443/a@b.html": f"GET https://tandil.site:{MASK}@b.html",
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.items(), ids=range(len(SHOWN)))
def test_what_looks_like_a_secret_is_masked_and_the_rest_stays(text: str, shown: str) -> None:
    assert mask(text) == shown


secrets = st.frozensets(st.text(min_size=6, max_size=20), min_size=1, max_size=4)


@given(secrets, st.lists(st.text(max_size=10), max_size=5), st.data())
def test_no_known_secret_is_left(secrets: frozenset[str], words: list[str], data: st.DataObject) -> None:
    assume(not any(MASK in secret or secret in MASK for secret in secrets))
    text = "".join(word + data.draw(st.sampled_from(sorted(secrets))) for word in words)
    assert not any(secret in mask(text, secrets) for secret in secrets if secret not in " ".join(words))


def test_a_secret_that_begins_like_another_is_masked_whole() -> None:
    assert mask("abcdefgh", frozenset({"abcdef", "abcdefgh"})) == MASK


LONG = (
    "a",
    "a.",
    "token",
    "token.",
    "password='",
    'secret\\"',
    "://a:",
    "basic ",
    "-----BEGIN ",
    "authorization:  ",
    " ",
)


@pytest.mark.parametrize("part", LONG)
def test_a_hostile_log_of_a_hundred_kilobytes_is_masked_at_once(part: str) -> None:
    started = time.process_time()
    mask(part * (100_000 // len(part)))
    assert time.process_time() - started < 2


def test_the_secrets_of_an_env_file_are_the_values_of_telling_names() -> None:
    text = """
    # POSTGRES_PASSWORD=commented
    POSTGRES_USER=ferreteria_user
    POSTGRES_PASSWORD="hun=ter two"
    SMTP_PASS=mail-secret
    export SECRET_KEY='0123456789'
    API_TOKEN=short
    DATABASE_URL=postgres://a:b@db/c
    """
    assert env_secrets(text) == {"hun=ter two", "mail-secret", "0123456789", "postgres://a:b@db/c"}
