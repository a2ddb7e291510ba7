"""The demo agent: tells the time in a city and does sums, with the model on this CPU or any other."""

from __future__ import annotations

import ast
import operator
import os
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, Field

from agent_server.errors import TargetError
from agent_server.middleware import RequestOptions

_REGIONS = ("Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")
ZONES = sorted(z for z in zoneinfo.available_timezones() if z.startswith(_REGIONS) and z.count("/") == 1)
_ARITHMETIC = r"^[0-9(][0-9 .+*/()-]*$"
_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}


class TimeArguments(BaseModel):
    """Arguments of `get_current_time`; the names of the zones are part of the schema that the model keeps to."""

    timezone: str = Field(description="IANA name of a time zone", pattern=f"^({'|'.join(ZONES)})$")


class SumArguments(BaseModel):
    """Arguments of `calculate`."""

    expression: str = Field(description="Sums, such as 2 * (3 + 4)", pattern=_ARITHMETIC, max_length=60)


@tool(args_schema=TimeArguments)
def get_current_time(timezone: str) -> str:
    """the date and time in a city"""
    now = datetime.now(zoneinfo.ZoneInfo(timezone))
    city = timezone.rpartition("/")[2].replace("_", " ")
    return f"In {city} it is {now:%H:%M} on {now:%A}, {now.day} {now:%B %Y}"


@tool(args_schema=SumArguments)
def calculate(expression: str) -> str:
    """arithmetic"""
    try:
        value = _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return f"{expression} has no value"
    return f"{expression} = {value:.10g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            one, other = _value(left), _value(right)
            if isinstance(op, ast.Pow) and (abs(one) > 1e6 or abs(other) > 64):
                raise OverflowError
            return _OPERATORS[type(op)](one, other)
    raise ValueError


get_current_time.metadata = {
    "topic": "date and time",
    "examples": [
        ("What time is it in Vienna?", {"timezone": "Europe/Vienna"}),
        ("Is it morning in Denver?", {"timezone": "America/Denver"}),
        ("What is the date today in Perth?", {"timezone": "Australia/Perth"}),
        ("Tell me the current time in Accra.", {"timezone": "Africa/Accra"}),
        ("time in Prague", {"timezone": "Europe/Prague"}),
        ("What's the time in Hong Kong?", {"timezone": "Asia/Hong_Kong"}),
    ],
}
calculate.metadata = {
    "topic": "arithmetic",
    "examples": [
        ("What is 12 times 7?", {"expression": "12 * 7"}),
        ("How much is 340 plus 25?", {"expression": "340 + 25"}),
        ("Calculate (8 - 3) / 2.", {"expression": "(8 - 3) / 2"}),
        ("Divide 90 by 6", {"expression": "90 / 6"}),
        ("5+5", {"expression": "5 + 5"}),
        ("What is 3 to the power of 4?", {"expression": "3 ** 4"}),
    ],
}


def agent() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Tells the time in a city and does sums.

    The model is `AGENT_SERVER_MODEL`, a name for LangChain's `init_chat_model` such as "openai:gpt-5-mini", at
    `AGENT_SERVER_MODEL_BASE_URL` if set; without it, the local one.
    """
    return create_agent(_model(), [get_current_time, calculate], middleware=[RequestOptions()], name="demo")


def _model() -> BaseChatModel:
    name = os.environ.get("AGENT_SERVER_MODEL")
    if not name:
        return _local_model()
    from langchain.chat_models import init_chat_model

    options: dict[str, Any] = {}
    if base_url := os.environ.get("AGENT_SERVER_MODEL_BASE_URL"):
        options["base_url"] = base_url
    model: BaseChatModel = init_chat_model(name, **options)
    return model


def _local_model() -> BaseChatModel:
    from importlib.util import find_spec

    if find_spec("xllamacpp") is None:
        raise TargetError(
            "The demo's model needs an extra: pip install 'agent-server[local]'; or set AGENT_SERVER_MODEL."
        )
    from agent_server.local import LocalChatModel
    from agent_server.local.model_file import model_path

    model_path()  # fetched before the server listens, not under the first request
    return LocalChatModel()
