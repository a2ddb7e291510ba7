"""The tools of the scripted agents."""

from __future__ import annotations

from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException, tool

from tests.support.models import SECRET


def _weather(city: str) -> str:
    return f"It is sunny in {city}."


async def _weather_async(city: str) -> str:
    return _weather(city)


get_weather: BaseTool = StructuredTool.from_function(
    func=_weather, coroutine=_weather_async, name="get_weather", description="The weather in a city."
)


@tool
async def get_status() -> str:
    """Whether the weather station works."""
    return "The station works."


@tool
async def send_email(to: str, body: str) -> str:
    """Send an email."""
    return f"Sent to {to}."


class StationError(RuntimeError):
    """The weather station failed."""

    def __init__(self) -> None:
        super().__init__(f"station password {SECRET} was refused")


@tool
async def broken_weather(city: str) -> str:
    """The weather in a city, from a station that always fails."""
    raise StationError


async def _closed(city: str) -> str:
    raise ToolException("The station is closed.")


closed_weather: BaseTool = StructuredTool.from_function(
    coroutine=_closed,
    name="closed_weather",
    description="The weather in a city, from a station that says it is closed.",
    handle_tool_error=True,
)


def weather_schema() -> dict[str, Any]:
    """`get_weather` as a client declares it in a Responses request."""
    return {
        "type": "function",
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    }
