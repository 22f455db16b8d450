"""A function as a Prefect flow that is named and explained after another one, the body of a playbook or job."""

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from prefect import Flow, flow
from pydantic import BaseModel


def as_flow(
    function: Callable[..., Any], body: Callable[..., Any], name: str, wants: type[BaseModel] | None
) -> Flow[..., Any]:
    """Make the function a flow that Prefect takes for the body, explained by the docstring of the body's module.

    The fields of `wants` become parameters of the flow; the UI's form shows their descriptions.
    """
    function.__name__ = function.__qualname__ = body.__name__
    function.__module__ = body.__module__
    _take_parameters(function, wants)
    description = unwrapped(sys.modules[body.__module__].__doc__ or "")
    made = flow(name=name, description=description, flow_run_name=name + "-{site}", persist_result=True)(function)
    assert isinstance(made, Flow)
    return made


def _take_parameters(function: Callable[..., Any], wants: type[BaseModel] | None) -> None:
    """Give the flow the fields of `wants` as parameters of its own, with their descriptions."""
    signature = inspect.signature(function, eval_str=True)
    known = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    fields = wants.model_fields if wants else {}
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in fields.items()
    ]
    function.__signature__ = signature.replace(parameters=[*known, *more])  # type: ignore[attr-defined]
    indent = " " * 16
    lines = [f"{indent}{name}: {field.description}" for name, field in fields.items()]
    function.__doc__ = "\n".join([(function.__doc__ or "").rstrip(), *lines, indent])


def unwrapped(text: str) -> str:
    """One line a paragraph or list item: the UI shows every line's end as a break."""
    return re.sub(r"(?<!\n)\n(?!\n| *(?:\d+\.|-) ) *", " ", text.strip())
