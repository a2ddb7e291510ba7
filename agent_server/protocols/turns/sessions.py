"""Sessions: threads that belong to whoever holds their token."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from starlette.requests import Request

from agent_server.errors import NotFoundError, RequestError
from agent_server.graph.converter import now_ms
from agent_server.http.identity import TENANT, Network, identity_of
from agent_server.protocols.turns.request import Grant, Opening, Tokens, bearer
from agent_server.runs.engine import Engine
from agent_server.runs.stores.port import Thread
from agent_server.settings import Settings

_FOR_EVER_DAYS = 3650.0


class Session(NamedTuple):
    """A session: its thread, whose it is, the agent that it talks to, and how its streams are framed."""

    id: str
    user_id: str = ""
    agent: str = ""
    stream_format: str = ""


class _Note(msgspec.Struct, frozen=True):
    """What is written down of a session with its thread, as a conversation's metadata."""

    metadata: dict[str, str] = {}
    session: bool = False


_note_of: msgspec.json.Decoder[_Note] = msgspec.json.Decoder(_Note)


class UnauthorizedError(RequestError):
    """The request has no token, or one that is not for this session or is over."""

    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, param="authorization", code="invalid_token")


class Sessions:
    """The sessions of one app."""

    def __init__(self, engine: Engine, settings: Settings, proxies: tuple[Network, ...]) -> None:
        self._engine = engine
        self._proxies = proxies
        self._tokens = Tokens(settings.secret.get_secret_value())
        self._kept_ms = round((settings.retention_days or _FOR_EVER_DAYS) * 86_400_000)

    async def open(self, request: Request, opening: Opening, agent: str) -> tuple[Session, bool]:
        """The session that a request asks for, and whether it is new.

        One that is there already is opened again with its token alone; a thread that another protocol made, by
        everybody. Raises `UnauthorizedError`.
        """
        user = identity_of(request.scope, self._proxies).user or opening.user_id or ""
        session_id = opening.session_id or opening.channel_id or f"sess_{secrets.token_hex(16)}"
        made = Session(session_id, user, agent, opening.stream_format or "")
        now = now_ms()
        thread = Thread(session_id, now, _written(made), now + self._kept_ms)
        if await self._engine.keeper.store.create_thread(TENANT, thread):
            return made, True
        found = await self._find(session_id)
        if found is None:  # a thread of another protocol
            return made, False
        grant = self._grant(request)
        if grant is None or grant.session_id != session_id or grant.user_id != found.user_id:
            raise UnauthorizedError("This session exists: send its token as 'Authorization: Bearer'.")
        return found, False

    async def of(self, request: Request, *named: str | None, user_id: str | None = None) -> Session:
        """The session whose token a request brings. `named` are the ids by which the body names it.

        Raises `UnauthorizedError`, and `NotFoundError` for a session that is not there or not the token's.
        """
        grant = self._grant(request)
        ids = {each for each in named if each is not None}
        if grant is None:
            names = ids or {each for each in (user_id,) if each}
            if names and bearer(request.headers) is None and not [each for each in ids if await self._exists(each)]:
                raise _unknown(next(iter(names)))
            raise UnauthorizedError("Send the session's token as 'Authorization: Bearer'.")
        known_user = identity_of(request.scope, self._proxies).user
        if ids - {grant.session_id} or {each for each in (user_id, known_user) if each} - {grant.user_id}:
            raise _unknown(next(iter(ids), user_id or ""))
        if not await self._exists(grant.session_id):
            raise _unknown(grant.session_id)
        return await self._find(grant.session_id) or Session(grant.session_id, grant.user_id)

    def token(self, session: Session) -> tuple[str, int]:
        """A token for a session, and the seconds that it lasts."""
        grant = Grant(session.id, session.user_id, now_ms() + self._kept_ms)
        return self._tokens.issue(grant), self._kept_ms // 1000

    def _grant(self, request: Request) -> Grant | None:
        token = bearer(request.headers)
        return None if token is None else self._tokens.read(token, now_ms())

    async def _exists(self, session_id: str) -> bool:
        return await self._engine.keeper.store.thread(TENANT, session_id) is not None

    async def _find(self, session_id: str) -> Session | None:
        """A session as it was opened; None for a thread of another protocol."""
        thread = await self._engine.keeper.store.thread(TENANT, session_id)
        note = None if thread is None else _note(thread)
        if note is None or not note.session:
            return None
        said: Mapping[str, str] = note.metadata
        return Session(session_id, *(said.get(name, "") for name in Session._fields[1:]))


def _written(session: Session) -> bytes:
    said = {name: value for name, value in session._asdict().items() if value and name != "id"}
    return msgspec.json.encode(_Note(said, session=True))


def _note(thread: Thread) -> _Note | None:
    try:
        return _note_of.decode(thread.metadata)
    except msgspec.MsgspecError:
        return None


def _unknown(name: str) -> NotFoundError:
    message = f"There is no session '{name[:100]}'." if name else "The request names no session that there is."
    return NotFoundError(message, param="session_id", code="session_not_found")
