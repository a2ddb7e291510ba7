"""What the weather agent imports from beside it."""

from __future__ import annotations

from langchain_core.tools import tool

ANSWER = ("It is ", "sunny ", "in Oslo.")


@tool
def forecast(city: str) -> str:
    """The weather in a city."""
    return f"Sun over {city}."
