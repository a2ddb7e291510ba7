"""From a conversation to the input that a Runnable takes, read off its input schema."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langgraph.graph.state import CompiledStateGraph
from pydantic.errors import PydanticUserError

Shape = Callable[[Sequence[BaseMessage]], Any]
Schema = Mapping[str, Any]


def unbound(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """What is inside `bind`, `with_config` and `with_types`."""
    while isinstance(runnable, RunnableBinding):
        runnable = runnable.bound
    return runnable


def input_shape(runnable: Runnable[Any, Any]) -> Shape:
    """How this Runnable takes a conversation.

    | input schema | input |
    |---|---|
    | an object with `messages`, or without declared properties | `{"messages": [...]}` |
    | string | text of the last user message |
    | array | the messages |
    | an object with one string property, or only that one required | `{property: text}` |
    | an object with one array property alone | `{property: [...]}` |
    | language model, anything else | the messages |
    """
    core = unbound(runnable)
    if isinstance(core, BaseLanguageModel):
        return list
    if isinstance(core, CompiledStateGraph):
        builder = core.builder
        if "messages" in builder.schemas[builder.input_schema]:
            return _under("messages", list)
    return _from_schema(_json_schema(runnable))


def _json_schema(runnable: Runnable[Any, Any]) -> Schema:
    """The JSON schema of the input; empty where the types of the input have none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            schema = runnable.get_input_jsonschema()
        except (PydanticUserError, NotImplementedError, NameError, TypeError, AttributeError):
            return {}
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    return schema["$defs"][reference] if reference else schema


def _from_schema(schema: Schema) -> Shape:
    if schema.get("type") == "string":
        return last_user_text
    if schema.get("type") != "object":
        return list
    properties: Schema = schema.get("properties", {})
    if not properties or "messages" in properties:
        return _under("messages", list)
    if properties.keys() == {"root"}:  # RunnableParallel: the input of a step that takes no object
        return _from_schema(properties["root"])
    if prop := _text_property(properties, schema.get("required", ())):
        return _under(prop, last_user_text)
    name, only = next(iter(properties.items()))
    return _under(name, list) if len(properties) == 1 and only.get("type") == "array" else list


def _text_property(properties: Schema, required: Sequence[str]) -> str | None:
    texts = [name for name, schema in properties.items() if _may_be_text(schema)]
    needed = [name for name in texts if list(required) == [name]]
    return next(iter(needed), None) or (texts[0] if len(texts) == 1 else None)


def _may_be_text(schema: Schema) -> bool:
    """Whether a property is a string, may be one, or says nothing of its type."""
    if "anyOf" in schema:
        return any(each.get("type") == "string" for each in schema["anyOf"])
    return schema.get("type", "string") == "string" and not schema.keys() & {"$ref", "allOf", "oneOf"}


def _under(key: str, shape: Shape) -> Shape:
    return lambda messages: {key: shape(messages)}


def last_user_text(messages: Sequence[BaseMessage]) -> str:
    """The text of the last user message; "" if there is none."""
    return next((str(each.text) for each in reversed(messages) if isinstance(each, HumanMessage)), "")
