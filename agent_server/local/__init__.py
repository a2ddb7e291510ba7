"""A real language model in this process, on this CPU: no key, no network, no second program (extra `local`)."""

from agent_server.local.chat_model import LocalChatModel

__all__ = ["LocalChatModel"]
