"""Secrets never reach logs, artifacts or messages, even when a service's own log holds them."""

import re

MASK = "•••"

# Every repetition is bounded or cannot be entered twice, so that a hostile log costs no more time than its length.
_PATTERNS = (
    # user:password@host in any URL
    re.compile(r"(?P<keep>://[^\s:/@]{0,200}:)\S{1,500}(?=@)"),
    # password=..., SECRET_KEY: "...", WITH PASSWORD '...'
    re.compile(
        r"(?P<keep>(?:password|passwd|secret|token|api[_-]?key|private[_-]?key)[\w.-]{0,60}[\\\"']{0,2}"
        r"(?:[ \t]{0,8}[=:][ \t]{0,8}|[ \t]{1,8}(?=[\"']))(?P<quote>\\?[\"'])?)"
        r"(?(quote)(?:(?!(?P=quote))(?:\\.|[^\n]))+|[^\s\"']+)",
        re.I,
    ),
    re.compile(
        r"(?P<keep>\bauthorization[\"']?[ \t]{0,8}:[ \t]{0,8}[\"']?(?:(?:basic|bearer|token)[ \t]{1,8})?)\S+", re.I
    ),
    re.compile(r"(?P<keep>\b(?:bearer|basic)[ \t]{1,8})[A-Za-z0-9._~+/-]{16,}=*", re.I),
    re.compile(r"(?P<keep>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*?(?=-----END|$)", re.S),
)
_SECRET_NAME = re.compile(r"PASS|PWD|SECRET|TOKEN|KEY|DSN|DATABASE_URL", re.I)


def mask(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """The text with every known secret, and whatever looks like one, replaced by dots."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: match["keep"] + MASK, text)
    return text


def env_secrets(env_file: str) -> frozenset[str]:
    """The values in an env file whose names say that they are secret; short ones would mask plain words."""
    pairs = (line.partition("=") for line in env_file.splitlines() if not line.lstrip().startswith("#"))
    values = (value.strip().strip("\"'") for name, _, value in pairs if _SECRET_NAME.search(name))
    return frozenset(value for value in values if len(value) >= 6)
