"""Each error says what failed and what to do, and stays itself on its way through Prefect."""

import pickle

import pytest

from blocks import errors
from blocks.errors import GuardiaError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GuardiaError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling(kind: type[GuardiaError]) -> None:
    error = pickle.loads(pickle.dumps(kind("It failed.", "Do this.")))  # noqa: S301 - our own
    assert type(error) is kind
    assert (str(error), error.what, error.cure) == ("It failed. Do this.", "It failed.", "Do this.")


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_in_the_docstring_is_the_tree(kind: type[GuardiaError]) -> None:
    depth = len(kind.__mro__) - len(GuardiaError.__mro__)
    assert f"\n{'  ' * depth}{kind.__name__}" in (errors.__doc__ or "")


def test_only_a_lost_connection_is_worth_another_try() -> None:
    lost = {kind.__name__ for kind in KINDS if not kind.permanent}
    assert lost == {"HostUnreachable", "DatabaseUnreachable", "StoreUnreachable", "DrillBroken"}


def test_an_error_without_a_cure_has_no_space_at_its_end() -> None:
    assert str(GuardiaError("It failed.")) == "It failed."
