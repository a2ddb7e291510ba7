"""What a client of session turns says: bodies, decisions, and the token of its session."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from agent_server.errors import ConflictError, RequestError
from agent_server.events import Interrupt
from agent_server.framing import to_json
from agent_server.graph.answers import Verdict, requests_of, resume_value

StreamFormat = Literal["sse", "ndjson"]
Text = Annotated[str, Meta(min_length=1, max_length=1_000_000)]
Name = Annotated[str, Meta(min_length=1, max_length=512, pattern="^[^\\x00]*$")]
Seconds = Annotated[float, Meta(ge=0, le=3600)]

_TURN = "turn_"


class Decision(Struct, frozen=True):
    """What somebody decided about one call that waits for approval."""

    approve: bool = True
    reason: str | None = None
    edited: dict[str, Any] | None = None


Word = Literal["approve", "reject"]
Decided = Word | Decision | list[Word | Decision]


class Opening(Struct, frozen=True):
    """`POST /initialize`. Without a session id, a new session; `channel_id` is another name for it."""

    session_id: Name | None = None
    channel_id: Name | None = None
    user_id: Name | None = None
    agent: str | None = None
    stream_format: StreamFormat | None = None
    startup_command: Text | None = None
    timeout_seconds: Seconds = 60.0


class Saying(Struct, frozen=True):
    """`POST /invoke_agent` and `POST /invoke_agent_stream`: a query, or a `decision` on what waits for one.

    `decision` is one for all calls that wait, or a list with one for each in their order. A turn that takes longer
    than `timeout_seconds` goes on by itself; with `defer` false it is answered by 504 then, and not by 202.
    """

    user_query: Text | None = None
    decision: Decided | None = None
    session_id: Name | None = None
    channel_id: Name | None = None
    user_id: Name | None = None
    timeout_seconds: Seconds | None = None
    defer: bool = True
    show_agent_traces: bool = True
    stream_format: StreamFormat | None = None

    def check(self) -> Saying:
        """Raises `RequestError` unless exactly one of query and decision is there."""
        if (self.user_query is None) == (self.decision is None):
            message = "A turn is a 'user_query' or a 'decision': give one of them."
            raise RequestError(message, param="user_query", code="missing_required_parameter")
        return self

    @property
    def digest(self) -> str:
        """Equal for what says the same."""
        said = [self.user_query, msgspec.to_builtins(self.decision)]
        return hashlib.sha256(to_json(said)).hexdigest()


class Wire(Struct, frozen=True):
    """What is kept with a turn's run, to tell it again."""

    digest: str = ""
    query: str = ""
    user_id: str = ""
    traces: bool = True


wire_from: msgspec.json.Decoder[Wire] = msgspec.json.Decoder(Wire)


def answers(interrupts: Sequence[Interrupt], saying: Saying) -> dict[str, Any]:
    """Interrupt id -> the value it is resumed with.

    A query answers free questions, a decision everything else. Raises `ConflictError` where the other was asked for,
    `RequestError` for decisions that do not fit.
    """
    if saying.decision is None:
        if any(interrupt.kind != "free" for interrupt in interrupts):
            message = "The session waits for a decision: answer with 'decision', not with 'user_query'."
            raise ConflictError(message, param="decision", code="awaiting_decision")
        return {each.id: resume_value(each, [Verdict(value=saying.user_query)]) for each in interrupts}
    if not interrupts:
        raise ConflictError("The session does not wait for a decision.", param="decision", code="nothing_to_decide")
    if any(interrupt.kind == "client_tool" for interrupt in interrupts):
        message = "The session waits for the output of a client's tool, which session turns have no form for."
        raise ConflictError(message, param="decision", code="awaiting_tool_output")
    verdicts = _verdicts(saying.decision, sum(max(len(requests_of(each)), 1) for each in interrupts))
    found: dict[str, Any] = {}
    for each in interrupts:
        count = max(len(requests_of(each)), 1)
        found[each.id], verdicts = resume_value(each, verdicts[:count]), verdicts[count:]
    return found


def _verdicts(decided: Decided, count: int) -> list[Verdict]:
    given = decided if isinstance(decided, list) else [decided] * count
    if len(given) != count:
        message = f"The session waits for {count} decisions, not for {len(given)}."
        raise RequestError(message, param="decision", code="invalid_value")
    return [_verdict(each) for each in given]


def _verdict(decision: Word | Decision) -> Verdict:
    if isinstance(decision, str):
        return Verdict(approve=decision == "approve")
    return Verdict(decision.approve, decision.reason, decision.edited)


def turn_id(run_id: str) -> str:
    """The id of the turn that is this run."""
    return _TURN + run_id


def run_of(turn: str) -> str | None:
    """The run that is this turn; None for what is no turn's id."""
    return turn.removeprefix(_TURN) if turn.startswith(_TURN) else None


class Grant(NamedTuple):
    """What a token says: whose session it is, and until when, in Unix milliseconds."""

    session_id: str
    user_id: str
    expires_at: int


class Tokens:
    """Session tokens: what they grant, signed with the server's secret (docs/adr/0018-session-tokens.md)."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"session token", "sha256")

    def issue(self, grant: Grant) -> str:
        """The token for a grant."""
        packed = to_json(list(grant))
        return f"{_base64(packed)}.{_base64(self._signature(packed))}"

    def read(self, token: str, now: int) -> Grant | None:
        """What a token grants; None for one that is not ours, or is over."""
        packed, _, signature = token.partition(".")
        try:
            said, signed = _bytes(packed), _bytes(signature)
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(signed, self._signature(said)):
            return None
        grant = msgspec.json.decode(said, type=Grant)
        return grant if grant.expires_at > now else None

    def _signature(self, packed: bytes) -> bytes:
        return hmac.digest(self._key, packed, "sha256")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750, section 2.1)."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
