"""Scenarios of Runnables that are no graphs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from tests.support.chunks import finish, text
from tests.support.models import SECRET
from tests.support.scenarios.base import Agent, Factory, model


def _reverse(said: str) -> str:
    return said[::-1]


def _fail(said: str) -> str:
    raise ValueError(SECRET)


async def _spell(said: AsyncIterator[str]) -> AsyncIterator[str]:
    async for part in said:
        for letter in part:
            yield letter


def _chain() -> Agent:
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("placeholder", "{messages}")])
    return prompt | model([*text("Very ", "brief."), *finish()]) | StrOutputParser()


RUNNABLES: dict[str, Factory] = {
    "plain_runnable": lambda: RunnableLambda(_reverse),
    "failing_runnable": lambda: RunnableLambda(_fail),
    "runnable_generator": lambda: RunnableGenerator(_spell),
    "prompt_model_parser": _chain,
    "chat_model": lambda: model([*text("Just ", "a model."), *finish()]),
}
