"""The one file, kept in git, that says what Guardia looks after. `guardia apply site.toml` registers it as blocks.

Secrets are never written in it. Where a secret is asked for, the file says where it is:
{ env = "NAME" } an environment variable, { file = "~/.ssh/key" } a file, { block = "secret-name" } a Prefect
Secret block that is there already.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, get_args

from prefect.blocks.core import Block
from pydantic import BaseModel, SecretStr, ValidationError

from blocks.errors import ConfigError
from blocks.site import Site

_SOURCES = ("env", "file", "block")
_PREFECT_KEYS = {"block_type_slug"}


def read(path: Path) -> Site:
    """The site that a site file describes, not yet registered.

    Raises ConfigError, naming the field and the cure, for a file that is missing, is not TOML, has a key that
    does not exist, or a value that does not fit.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no site file {path}.", "See docs/site-file.md for one to copy.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Check its permissions and encoding.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.", "Fix the line it names.") from None
    _refuse_unknown_keys(Site, raw, path)
    try:
        return Site.model_validate(_resolve(Site, raw, path.parent))
    except ValidationError as error:
        raise ConfigError(f"{path} has {_problems(error)}", "Fix the file; nothing was changed.") from None


def register(site: Site) -> list[str]:
    """Write the site and what it is made of as Prefect blocks; the site file wins over what is there.

    Returns the blocks' slugs, `type/name`.
    """
    made_of = (site.host, site.on_call, site.mailbox, site.database, site.backups)
    parts: list[Block] = [part for part in made_of if part is not None]
    parts.append(site)
    for block in parts:
        block.save(site.name, overwrite=True)
    return [f"{block.get_block_type_slug()}/{site.name}" for block in parts]


def load(name: str) -> Site:
    """The registered site of that name.

    Raises ConfigError, listing the known ones, if there is none, or naming the field if a block was spoilt since.
    """
    try:
        block = Site.load(name)
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise ConfigError(
            f"The blocks of {name} have {_problems(error.__cause__)}", "Run `guardia apply site.toml` again."
        ) from None
    except ValueError:
        known = ", ".join(names()) or "none"
        raise ConfigError(
            f"There is no site {name!r}; registered: {known}.", "Register it with `guardia apply site.toml`."
        ) from None
    assert isinstance(block, Site)
    return block


def names() -> list[str]:
    """The names of all registered sites; none where a new server does not know what a site is."""
    from prefect.client.orchestration import get_client

    query = {"block_types": {"slug": {"any_": [Site._block_type_slug]}}}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/block_documents/filter", json=query)
    return sorted(document["name"] for document in answer.json())


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        message = problem["msg"].removeprefix("Value error, ")
        message = "is missing" if problem["type"] == "missing" else message
        message += _expected(Site, problem["loc"]) if problem["type"] == "string_pattern_mismatch" else ""
        lines.append(f"{place}: {message}")
    return f"{len(lines)} problem{'s' if len(lines) > 1 else ''}: " + "; ".join(lines) + "."


def _expected(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """What the field that a pattern refused is for, which says more than the pattern."""
    field = model.model_fields.get(str(place[0]))
    if field is None:
        return ""
    inner = _models(field.annotation)
    if inner and len(place) > 1:
        return _expected(inner[0], place[1:])
    return f" ({field.description})" if field.description else ""


def _refuse_unknown_keys(model: type[BaseModel], raw: Any, path: Path, place: str = "") -> None:
    """Blocks ignore what they do not know; a typo in a site file must not be ignored."""
    if not isinstance(raw, dict):
        return
    known = set(model.model_fields) - _PREFECT_KEYS
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            cure = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(known))}."
            raise ConfigError(f"{path}: {place}{key} is not a setting.", cure)
        for inner in _models(model.model_fields[key].annotation):
            for item in value if isinstance(value, list) else [value]:
                _refuse_unknown_keys(inner, item, path, f"{place}{key}.")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _resolve(model: type[BaseModel], raw: dict[str, Any], folder: Path, place: str = "") -> dict[str, Any]:
    """Put the values that the file points to in their places."""
    resolved: dict[str, Any] = {}
    for key, value in raw.items():
        annotation = model.model_fields[key].annotation
        inner = _models(annotation)
        secret = annotation is SecretStr or SecretStr in get_args(annotation)
        if secret or (isinstance(value, dict) and not inner):
            resolved[key] = _secret(value, folder, place + key, secret=secret)
        elif inner and isinstance(value, dict):
            resolved[key] = _resolve(inner[0], value, folder, f"{place}{key}.")
        else:
            resolved[key] = value
    return resolved


def _secret(value: Any, folder: Path, place: str, *, secret: bool) -> Any:
    ways = 'Write { env = "NAME" }, { file = "PATH" } or { block = "secret-name" }.'
    if not (isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _SOURCES):
        problem = "a secret does not belong in a file kept in git" if secret else "is not a value"
        raise ConfigError(f"{place}: {problem}.", ways)
    source, name = next(iter(value.items()))
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{place}.{source} must be a name.", ways)
    if source == "env":
        return _from_environment(name, place)
    return _from_file(folder, name, place) if source == "file" else _from_block(name, place)


def _from_environment(name: str, place: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"{place}: the environment has no {name}.", f"Set it: export {name}=…")
    return os.environ[name]


def _from_file(folder: Path, name: str, place: str) -> str:
    """A path that begins with ~ is in a home directory, another one in the site file's folder."""
    try:
        return (folder / Path(name).expanduser()).read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:  # no UTF-8, a NUL in the name, nobody's home directory
        raise ConfigError(f"{place}: {folder / name} cannot be read: {error}.", "Check the path.") from None


def _from_block(name: str, place: str) -> str:
    from prefect.blocks.system import Secret

    try:
        block = Secret.load(name)
    except ValueError:
        raise ConfigError(f"{place}: there is no Secret block {name!r}.", "Create it in the Prefect UI.") from None
    assert isinstance(block, Secret)
    return str(block.get())
