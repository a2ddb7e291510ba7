"""agent_server: one agent, every wire its clients speak.

    from agent_server import create_app

    app = create_app({"my-agent": graph})       # any ASGI server serves it; or: agent-server serve my_agent.py

Names are imported when they are first used, so that `import agent_server` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_server.app import create_app
    from agent_server.context import ModelOptions, RequestContext
    from agent_server.library import responses_events
    from agent_server.middleware import RequestOptions
    from agent_server.settings import Settings

__version__ = "0.1.0"
__all__ = ["ModelOptions", "RequestContext", "RequestOptions", "Settings", "create_app", "responses_events"]

_HOMES = {
    "ModelOptions": "agent_server.context",
    "RequestContext": "agent_server.context",
    "RequestOptions": "agent_server.middleware",
    "Settings": "agent_server.settings",
    "create_app": "agent_server.app",
    "responses_events": "agent_server.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
