"""The shared state and the messages of a thread, restated for a client from what a run records of its state."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from agent_server.framing import Frame, to_json
from agent_server.protocols.agui.delta import diff
from agent_server.protocols.agui.messages import CallNames, Messages, Seen
from agent_server.protocols.agui.scopes import frame

Json = dict[str, Any]
_NOTHING: Any = object()


class Snapshots:
    """A fold of the state's values and of the messages that were streamed.

    The state is told without its messages, which have events of their own. `told` are the messages of this run as the
    client has them: what the state does not have yet, or never has because it is a subagent's, is put among the others.
    `said` are the LangChain messages of the state, None where it has none; `is_told` is whether there were any values.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._state: Any = _NOTHING
        self.is_told = False
        self.said: list[Any] | None = None
        self._told: list[Json] = []
        self._streamed: dict[str, str] = {}

    def take(self, values: Any) -> list[Frame]:
        """The values of the graph's state: what changed of them."""
        self.is_told = True
        if isinstance(values, dict):
            if "__interrupt__" in values:  # the questions come with the end of the run
                return []
            said = values.get("messages")
            self.said = said if isinstance(said, list) else None
            values = {key: value for key, value in values.items() if key != "messages"}
            if not values and self._state is _NOTHING:
                return []  # an agent that shares no state leaves the client's alone
        before, self._state = self._state, values
        if before is _NOTHING:
            return self.state()
        operations = diff(before, values)
        if operations and len(to_json(operations)) >= len(to_json(values)):
            return self.state()
        return [frame("STATE_DELTA", delta=operations)] if operations else []

    def ids(self) -> set[str]:
        """The ids of the state's messages."""
        return {str(message.get("id") or "") for message in self.said or () if isinstance(message, dict)}

    def names(self) -> CallNames:
        """The tool calls in the state's messages, as the client knows them."""
        messages = self._reader()
        messages.read(self.said or ())
        return messages.names

    def tell(self, message: Json, state_id: str = "") -> None:
        """The client has this message now; `state_id` is the id that it has in the agent's state."""
        self._told.append(message)
        if state_id:
            self._streamed[state_id] = message["id"]

    def state(self) -> list[Frame]:
        """The whole state."""
        if self._state is _NOTHING:
            return []
        return [Frame("STATE_SNAPSHOT", {"type": "STATE_SNAPSHOT", "snapshot": self._state})]

    def messages(self, *, whole: bool) -> list[Frame]:
        """All messages, where the state has any. `whole` keeps what was streamed and is not in the state (yet).

        A client that takes a snapshot puts what it did not have behind what it had. Where that is not the order, it
        is told the part before first.
        """
        if self.said is None:
            return []
        found = self._listed(self.said, whole=whole)
        known = {*self._seen.ids, *(message["id"] for message in self._told)}
        new = [message["id"] not in known for message in found]
        first = new.index(True) if True in new else len(new)
        parts = [found] if all(new[first:]) else [found[:first], found]
        return [Frame("MESSAGES_SNAPSHOT", {"type": "MESSAGES_SNAPSHOT", "messages": each}) for each in parts]

    def _reader(self) -> Messages:
        tagged = {message["id"]: message["subagentRunId"] for message in self._told if "subagentRunId" in message}
        calls = {message["id"]: message["toolCalls"] for message in self._told if "toolCalls" in message}
        return Messages(self._seen, self._streamed, self._seen.owners | tagged, calls)

    def read(self, said: Iterable[Any]) -> list[Json]:
        """LangChain messages as the client's, with what subagents said beside them in earlier runs."""
        found = self._reader().read(said)
        for before, aside in self._seen.asides:
            put(found, aside, {before})
        return found

    def _listed(self, said: Iterable[Any], *, whole: bool) -> list[Json]:
        """The same, with what was streamed in this run."""
        found = self.read(said)
        before: set[str] = set()
        for message in self._told:
            if whole or "subagentRunId" in message:
                put(found, message, before)
            before.add(message["id"])
        return found


def put(messages: list[Json], message: Json, before: Collection[str]) -> None:
    """Put a message behind the last of those `before`, a result behind its call; at the end where there are none."""
    if any(each["id"] == message["id"] for each in messages):
        return
    call = message.get("toolCallId")
    place = len(messages)
    for index, each in enumerate(messages):
        calls = [made["id"] for made in each.get("toolCalls", ())]
        if call in calls if call else each["id"] in before:
            place = index + 1
    while place < len(messages) and messages[place]["role"] == "tool":
        place += 1
    messages.insert(place, message)
