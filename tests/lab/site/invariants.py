"""The queries of `invariants.sql` by name."""

import re
from pathlib import Path

FILE = Path(__file__).with_suffix(".sql")


def invariants() -> dict[str, str]:
    """What always holds in the shop: name -> query whose rows violate it."""
    parts = re.split(r"^-- name: (.+)\n", FILE.read_text(), flags=re.MULTILINE)[1:]
    return {name: query.strip().removesuffix(";") for name, query in zip(parts[::2], parts[1::2], strict=True)}
