"""agent_server: one agent, every wire its clients speak."""

from __future__ import annotations

__version__ = "0.1.0"
