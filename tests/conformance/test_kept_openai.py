"""openai-python and openai-node call every method of `responses` on what is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from agent_server.settings import Settings
from tests.conformance.kept import MODES, Mode, ask, retrieved, said
from tests.conformance.node_judges import ready, verdicts
from tests.conformance.rules import check_stream
from tests.support.asking import ASKING
from tests.support.scripted import Gate, gated_text, long_answer
from tests.support.serve import serving
from tests.support.stores import on_every_store, store

__all__ = ["store"]

HEARING: dict[str, Any] = {"model": "hearing", "input": "One."}


class Gates:
    """One gate for each test that wants to hold an agent in the middle of its answer."""

    def __init__(self) -> None:
        self.names = [f"held-{number}" for number in range(40)]
        self.gates = {name: Gate() for name in self.names}

    def take(self) -> tuple[str, Gate]:
        """The name of an agent and its gate."""
        name = self.names.pop()
        return name, self.gates[name]


@pytest.fixture(scope="module")
def served(store: str) -> Iterator[tuple[str, Gates]]:
    gates = Gates()
    held = {name: gated_text(["Before ", "the gate. "], gate, ["After ", "it."]) for name, gate in gates.gates.items()}
    with serving({**ASKING, **held, "long": long_answer(200)}, Settings(store=store)) as base_url:
        try:
            yield base_url, gates
        finally:
            for gate in gates.gates.values():
                gate.open()


@pytest.fixture
def client(served: tuple[str, Gates]) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0) as openai:
        yield openai


@pytest.fixture
def held(served: tuple[str, Gates]) -> Iterator[tuple[str, Gate]]:
    name, gate = served[1].take()
    yield name, gate
    gate.open()


# openai-python


@on_every_store
@pytest.mark.parametrize("mode", MODES)
def test_what_was_created_is_retrieved(client: OpenAI, mode: Mode) -> None:
    created = ask(client, mode, **HEARING)
    assert retrieved(client, created["id"]) == created
    assert client.responses.retrieve(created["id"]).output_text == "I heard [u:One.]"


@pytest.mark.parametrize("after", [None, 0, 3, 10])
def test_a_stream_is_retrieved_from_any_place(client: OpenAI, after: int | None) -> None:
    with client.responses.create(**HEARING, stream=True) as stream:
        live: list[Any] = list(stream)
    place: Any = {} if after is None else {"starting_after": after}
    with client.responses.retrieve(live[0].response.id, stream=True, **place) as again:
        assert list(again) == live[0 if after is None else after + 1 :]


def test_the_accumulator_reads_a_stored_stream(client: OpenAI) -> None:
    with client.responses.stream(model="long", input="Tell!") as stream:
        live: list[Any] = list(stream)
        final = stream.get_final_response()
    with client.responses.stream(response_id=final.id) as stream:
        assert list(stream) == live
        assert stream.get_final_response() == final
    with client.responses.stream(response_id=final.id, starting_after=20) as stream:
        assert list(stream) == [event for event in live if event.sequence_number > 20]
        assert stream.get_final_response() == final


@on_every_store
def test_what_is_deleted_is_gone(client: OpenAI) -> None:
    created = client.responses.create(**HEARING)
    client.responses.delete(created.id)
    for gone in (
        lambda: client.responses.retrieve(created.id),
        lambda: client.responses.delete(created.id),
        lambda: client.responses.cancel(created.id),
        lambda: client.responses.input_items.list(created.id),
    ):
        with pytest.raises(NotFoundError):
            gone()
    with pytest.raises(BadRequestError) as raised:
        client.responses.create(**HEARING, previous_response_id=created.id)
    assert (raised.value.code, raised.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_response_in_the_background_is_polled_until_it_is_done(client: OpenAI, held: tuple[str, Gate]) -> None:
    name, gate = held
    created = client.responses.create(model=name, input="Hi", background=True)
    assert created.status in ("queued", "in_progress")
    assert created.background
    gate.wait_reached()
    assert client.responses.retrieve(created.id).status == "in_progress"
    gate.open()
    with client.responses.retrieve(created.id, stream=True) as stream:
        last = list(stream)[-1]
    assert last.type == "response.completed"
    done = client.responses.retrieve(created.id)
    assert (done.status, done.output_text) == ("completed", "Before the gate. After it.")


@on_every_store
def test_a_stream_in_the_background_is_left_and_found_again(client: OpenAI, held: tuple[str, Gate]) -> None:
    name, gate = held
    seen: list[Any] = []
    with client.responses.create(model=name, input="Hi", background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    gate.wait_reached()
    response_id = seen[0].response.id
    with client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number) as stream:
        gate.open()
        seen += stream
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].response.output_text == "Before the gate. After it."
    with client.responses.stream(response_id=response_id) as stream:
        assert stream.get_final_response().output_text == "Before the gate. After it."


@on_every_store
@pytest.mark.parametrize("streamed", [True, False])
def test_a_response_in_the_background_is_cancelled_and_keeps_what_it_said(
    client: OpenAI, held: tuple[str, Gate], streamed: bool
) -> None:
    name, gate = held
    created = client.responses.create(model=name, input="Hi", background=True)
    gate.wait_reached()
    reader = client.responses.retrieve(created.id, stream=True) if streamed else None
    cancelled = client.responses.cancel(created.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(created.id) == cancelled
    assert client.responses.retrieve(created.id) == cancelled
    assert cancelled.output_text == "Before the gate. "
    if reader is not None:
        events: list[Any] = list(reader)
        assert events[-1].response == cancelled


def test_what_is_over_cannot_be_cancelled(client: OpenAI) -> None:
    created = client.responses.create(**HEARING)
    with pytest.raises(BadRequestError, match="Cannot cancel a completed response"):
        client.responses.cancel(created.id)


@on_every_store
def test_input_items_come_in_pages_in_both_orders(client: OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"Number {number}"} for number in range(7)]
    created = client.responses.create(model="hearing", input=items)
    orders: list[tuple[Any, Any]] = [("asc", range(7)), ("desc", reversed(range(7)))]
    for order, wanted in orders:
        listed: list[Any] = list(client.responses.input_items.list(created.id, order=order, limit=3))
        assert [item.content[0].text for item in listed] == [f"Number {number}" for number in wanted]
        assert len({item.id for item in listed}) == 7
    first: Any = client.responses.input_items.list(created.id, order="asc", limit=3)
    assert (len(first.data), first.has_more) == (3, True)
    rest: Any = client.responses.input_items.list(created.id, order="asc", after=first.last_id, limit=100)
    assert [item.content[0].text for item in rest.data] == [f"Number {number}" for number in range(3, 7)]


def test_what_is_not_stored_is_not_found(client: OpenAI) -> None:
    created = client.responses.create(**HEARING, store=False)
    assert created.store is False
    with pytest.raises(NotFoundError):
        client.responses.retrieve(created.id)


@on_every_store
def test_an_idempotent_retry_gets_the_same_response(client: OpenAI) -> None:
    headers = {"Idempotency-Key": f"key-{id(client)}"}
    first = client.responses.create(**HEARING, extra_headers=headers)
    assert client.responses.create(**HEARING, extra_headers=headers) == first


# openai-node


def calls(url: str, *steps: list[Any]) -> list[Any]:
    ready()
    (verdict,) = verdicts("openai_calls", [{"baseURL": f"{url}/v1", "calls": list(steps)}])
    assert verdict["ok"], verdict
    results: list[Any] = verdict["results"]
    return results


def of(place: int, *path: Any) -> dict[str, Any]:
    """A part of an earlier result."""
    return {"$": [place, *path]}


@pytest.mark.node
def test_openai_node_retrieves_streams_and_deletes(served: tuple[str, Gates]) -> None:
    live, kept, replay, rest, accumulated, tail, deleted, gone = calls(
        served[0],
        ["responses.create", {**HEARING, "stream": True}],
        ["responses.retrieve", of(0, 0, "response", "id")],
        ["responses.retrieve", of(0, 0, "response", "id"), {"stream": True}],
        ["responses.retrieve", of(0, 0, "response", "id"), {"stream": True, "starting_after": 4}],
        ["responses.stream", {"response_id": of(0, 0, "response", "id")}],
        ["responses.stream", {"response_id": of(0, 0, "response", "id"), "starting_after": 4}],
        ["responses.delete", of(0, 0, "response", "id")],
        ["responses.retrieve", of(0, 0, "response", "id")],
    )
    final = check_stream(live)
    assert {**kept, "output_text": None} == {**final, "output_text": None}
    assert kept["output_text"] == "I heard [u:One.]"
    assert replay == live
    assert rest == live[5:]
    assert [event["sequence_number"] for event in accumulated] == list(range(len(live)))
    assert [event["sequence_number"] for event in tail] == list(range(5, len(live)))
    assert deleted == {"id": final["id"], "object": "response", "deleted": True}
    assert gone["error"]["status"] == 404


@pytest.mark.node
def test_openai_node_follows_cancels_and_pages(served: tuple[str, Gates], held: tuple[str, Gate]) -> None:
    items: Any = [{"role": "user", "content": f"Number {number}"} for number in range(5)]
    created, cancelled, again, kept, replay, _, listed, over = calls(
        served[0],
        ["responses.create", {"model": held[0], "input": "Hi", "background": True}],
        ["responses.cancel", of(0, "id")],
        ["responses.cancel", of(0, "id")],
        ["responses.retrieve", of(0, "id")],
        ["responses.retrieve", of(0, "id"), {"stream": True}],
        ["responses.create", {"model": "hearing", "input": items}],
        ["responses.inputItems.list", of(5, "id"), {"order": "asc", "limit": 2}],
        ["responses.cancel", of(5, "id")],
    )
    assert created["status"] in ("queued", "in_progress")
    assert cancelled["status"] == "cancelled"
    assert again == cancelled
    assert kept == {**cancelled, "output_text": said(cancelled)}
    assert replay[-1]["response"]["status"] == "cancelled"
    assert [item["content"][0]["text"] for item in listed] == [f"Number {number}" for number in range(5)]
    assert over["error"]["status"] == 400


@pytest.mark.node
def test_openai_node_answers_what_was_asked(served: tuple[str, Gates]) -> None:
    answer = {"type": "mcp_approval_response", "approval_request_id": of(0, "output", -1, "id"), "approve": True}
    body = {"model": "approval", "previous_response_id": of(0, "id")}
    first, second, same, other, conversation, _, joined, _ = calls(
        served[0],
        ["responses.create", {"model": "approval", "input": "Write!"}],
        ["responses.create", {**body, "input": [answer]}],
        ["responses.create", {**body, "input": [answer]}],
        ["responses.create", {**body, "input": [{**answer, "approve": False}]}],
        ["conversations.create", {}],
        ["responses.create", {"model": "approval", "input": "Write!", "conversation": of(4, "id")}],
        [
            "responses.create",
            {
                "conversation": of(4, "id"),
                "input": [{**answer, "approval_request_id": of(5, "output", -1, "id")}],
                "stream": True,
            },
        ],
        ["conversations.delete", of(4, "id")],
    )
    assert first["output"][-1]["type"] == "mcp_approval_request"
    assert second["output_text"] == "Outputs: Sent to oslo@b.example."
    assert same == second
    assert (other["error"]["status"], other["error"]["code"]) == (409, "approval_already_answered")
    final = check_stream(joined)
    assert said(final) == "Outputs: Sent to oslo@b.example."
    assert final["conversation"] == {"id": conversation["id"]}
    assert json.dumps(final).count("oslo@b.example") > 1
