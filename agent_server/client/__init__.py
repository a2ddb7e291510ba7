"""A client of session turns, for Python (here) and for the browser (`agent_server.js` beside this file).

    from agent_server.client import Client

    with Client("http://127.0.0.1:8000") as client:
        session = client.initialize(user_id="ann")
        for frame in session.stream("What is the weather in Oslo?"):
            print(frame.event, frame.data)
        print(session.ask("And tomorrow?")["answer"])

A stream whose connection is lost goes on where it was. Needs httpx alone.
"""

from __future__ import annotations

from agent_server.client.aio import AsyncClient, AsyncSession
from agent_server.client.blocking import Client, Session
from agent_server.client.following import AgentServerError, ConnectionLostError, Frame

__all__ = [
    "AgentServerError",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "ConnectionLostError",
    "Frame",
    "Session",
]
