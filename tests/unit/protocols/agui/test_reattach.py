"""A client that comes back at any moment ends with what one has that never left."""

from __future__ import annotations

from typing import Any

import pytest

from agent_server.events import Event
from agent_server.protocols.agui.encoder import AguiEncoder
from agent_server.protocols.agui.messages import Seen
from agent_server.protocols.agui.reattach import Reattached
from tests.conformance.expected import QUESTION
from tests.golden.conversations import CONVERSATIONS
from tests.support.agui import Client, in_order
from tests.support.play import RUN_ID, Settled, play

Json = dict[str, Any]
ASKED = {"id": f"input-{RUN_ID}-0", "role": "user", "content": QUESTION}
SEEN = Seen(ids=(ASKED["id"],))


def stayed(events: list[Event]) -> Client:
    encoder = AguiEncoder("t", "r", seen=SEEN)
    return Client([dict(ASKED)]).read(frame.data for event in events for frame in encoder.feed(event))


def came_back(events: list[Event], upto: int, client: Client | None = None) -> Client:
    encoder = Reattached(AguiEncoder("t", "r", seen=SEEN), [], [dict(ASKED)], None, upto)
    return (client or Client()).read(frame.data for event in events for frame in encoder.feed(event))


def left(events: list[Event], upto: int) -> Client:
    """A client whose connection was lost after so many events."""
    encoder = AguiEncoder("t", "r", seen=SEEN)
    client = Client([dict(ASKED)]).read(frame.data for event in events[:upto] for frame in encoder.feed(event))
    client.end = client.run
    return client


def _id(message: Json) -> str:
    return str(message["id"])


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_every_moment_is_good_to_come_back(name: str) -> None:
    told = CONVERSATIONS[name]()
    request = {"input": QUESTION, **told.request}
    played = await play(name, told.target, request, record=("values", "custom"), cancel_at=told.cancel_at)
    events = Settled().events(played)
    whole = stayed(events)
    spoken = [m["id"] for m in whole.messages if m["role"] != "tool"]  # results of one turn may change places
    for upto in range(1, len(events)):
        for client in (came_back(events, upto), came_back(events, upto, left(events, upto))):
            assert sorted(client.messages, key=_id) == sorted(whole.messages, key=_id), upto
            assert [m["id"] for m in client.messages if m["role"] != "tool"] == spoken, upto
            assert client.state == whole.state
            assert client.end == whole.end
            in_order(client.messages)
