"""Whatever a run tells, in whatever order, and wherever it ends: an AG-UI client takes it."""

from __future__ import annotations

from typing import Any

import jsonpatch
import orjson
from hypothesis import given
from hypothesis import strategies as st

from agent_server import events as ev
from agent_server.events import Event
from agent_server.framing import data_only
from agent_server.protocols.agui.delta import diff
from agent_server.protocols.agui.encoder import AguiEncoder
from agent_server.protocols.agui.messages import Seen
from agent_server.protocols.agui.reattach import Reattached
from tests.properties.interleavings import runs
from tests.support.agui import Client

names = st.sampled_from(["call_a", "call_b", "answer-1", "input-1"])
said: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda key: {"type": "human", "id": f"u{key}", "content": "Hi"}, st.integers(0, 2)),
    st.builds(lambda key: {"type": "ai", "id": key, "content": [{"type": "text", "text": "a"}]}, names),
    st.just(
        {"type": "ai", "id": "called", "content": "", "tool_calls": [{"id": "call_a", "name": "search", "args": {}}]}
    ),
    st.builds(lambda call: {"type": "tool", "id": "t", "tool_call_id": call, "content": "b", "status": "error"}, names),
    st.just({"type": "system", "id": "s", "content": "secret"}),
    st.just("not a message"),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "~/", 1.0, 1.5]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b/", "~c", ""]), inner, max_size=3)
    ),
    max_leaves=12,
)
states = st.one_of(
    st.builds(lambda told, count: {"messages": told, "count": count}, st.lists(said, max_size=4), json_values),
    st.just({"__interrupt__": []}),
    json_values,
)
parts = st.builds(ev.StatePart, st.sampled_from(["values", "values", "updates"]), states)


@st.composite
def stateful_runs(draw: st.DrawFn) -> list[Event]:
    """A run whose state is told in between, unique ids in each of its lists of messages."""
    events = draw(runs())
    for part in draw(st.lists(parts, max_size=3)):
        data = part.data
        if isinstance(data, dict) and isinstance(data.get("messages"), list):
            data["messages"] = list({str(m["id"] if isinstance(m, dict) else m): m for m in data["messages"]}.values())
            seen: set[str] = set()
            for message in list(data["messages"]):
                call = message.get("tool_call_id") if isinstance(message, dict) else None
                if call in seen:
                    data["messages"].remove(message)
                seen.add(call or "")
        events.insert(draw(st.integers(1, len(events) - 1)), part)
    return events


@given(stateful_runs(), st.sampled_from([Seen(), Seen(ids=("u0", "u1"), results={"call_a": ("mine",)})]))
def test_every_ag_ui_stream_keeps_the_rules(events: list[Event], seen: Seen) -> None:
    client = Client([{"id": key, "role": "user", "content": "Hi"} for key in seen.ids])
    encoder = AguiEncoder("t", "r", seen=seen)
    for event in events:
        for frame in encoder.feed(event):
            client.feed(orjson.loads(orjson.dumps(frame.data)))
    assert client.end is not None


@given(stateful_runs(), st.data())
def test_whoever_comes_back_at_any_moment_is_told_by_the_rules(events: list[Event], data: st.DataObject) -> None:
    said = [{"id": "u9", "role": "user", "content": "Hi"}]
    upto = data.draw(st.integers(0, len(events) - 1))
    encoder = Reattached(AguiEncoder("t", "r"), [], said, {"count": 1}, upto)
    client = Client().read(frame.data for event in events for frame in encoder.feed(event))
    assert client.end is not None


@given(stateful_runs())
def test_ag_ui_frames_own_their_data(events: list[Event]) -> None:
    encoder = AguiEncoder()
    told = [(frame, data_only(frame)) for event in events for frame in encoder.feed(event)]
    for frame, written in told:
        assert data_only(frame) == written, "a frame shows what came after it"


@given(json_values, json_values)
def test_a_patch_makes_the_new_value_of_the_old_one(old: Any, new: Any) -> None:
    made = jsonpatch.apply_patch(old, diff(old, new))
    assert (
        orjson.dumps(made, option=orjson.OPT_SORT_KEYS) == orjson.dumps(new, option=orjson.OPT_SORT_KEYS) or made == new
    )
    assert bool(diff(old, new)) == bool(diff(new, old))
