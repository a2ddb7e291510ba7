"""A server whose connections break after every frame of a stream."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Cutting:
    """Lets `frames` frames of each stream of a turn through, then hangs up.

    `connections` counts the streams that were asked for.
    """

    def __init__(self, app: ASGIApp, *, frames: int = 1) -> None:
        self._app = app
        self._frames = frames
        self.connections = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if not (path == "/invoke_agent_stream" or path.endswith("/events")):
            await self._app(scope, receive, send)
            return
        self.connections += 1
        cut = asyncio.Event()
        left = self._frames

        async def send_some(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body" and not cut.is_set():
                *frames, rest = _split(message.get("body", b""))
                if len(frames) < left or (len(frames) == left and not message.get("more_body", False) and not rest):
                    left -= len(frames)
                    await send(message)
                    return
                await send({**message, "body": b"".join(frames[:left]), "more_body": True})
                cut.set()
            else:
                await send(message)
            if cut.is_set():
                await asyncio.Event().wait()

        answering = asyncio.create_task(self._app(scope, receive, send_some))
        watching = asyncio.create_task(cut.wait())
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        watching.cancel()
        await asyncio.wait({answering, watching})


def _split(body: bytes) -> list[bytes]:
    """Frames of either framing, and what is left of the last."""
    end = b"\n" if body.startswith(b"{") else b"\n\n"
    *whole, rest = body.split(end)
    return [*(frame + end for frame in whole), rest]
