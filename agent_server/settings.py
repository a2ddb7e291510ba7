"""Settings of a server: defaults, overridden by `AGENT_SERVER_*` variables, overridden by arguments.

The core never reads the environment: the command line, or whoever calls `create_app`, hands it a `Settings`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ToolItems = Literal["function_call", "mcp_call", "none"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]


def _split(value: Any) -> Any:
    """A comma-separated list, as the environment holds it."""
    return tuple(part for each in value.split(",") if (part := each.strip())) if isinstance(value, str) else value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        ip_network(each)
    return value


class Settings(BaseSettings):
    """Everything an operator can set. A field's variable is `AGENT_SERVER_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="AGENT_SERVER_", env_ignore_empty=True, frozen=True, extra="forbid")

    # Where
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes any free one.")
    workers: int = Field(1, ge=1, description="Number of processes that serve the same port.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_networks)] = Field(
        (), description="Addresses or networks whose `x-forwarded-*` headers count; comma-separated."
    )

    # What
    default_agent: str | None = Field(None, description="Agent of a request that names none; else the first.")
    store: Literal["memory"] = Field("memory", description="Where runs and their events are kept.")
    tool_items_invocations: ToolItems = Field(
        "function_call", description="How `/invocations` shows the tools that ran on the server."
    )
    tool_items_responses: ToolItems = Field(
        "function_call", description="How `/responses` shows the tools that ran on the server."
    )
    tool_items_v1: ToolItems = Field(
        "mcp_call", description="How `/v1/responses` shows the tools that ran on the server."
    )
    event_source: Literal["tap", "astream_events"] = Field(
        "tap", description="Where a run's events come from: the lean tap, or LangChain's `astream_events`."
    )

    # How much
    max_body_bytes: int = Field(16 * 2**20, gt=0, description="Largest request body, in bytes.")
    max_concurrent_runs: int = Field(1000, gt=0, description="Runs at a time, per process; more get 503.")
    sync_threads: int = Field(40, gt=0, description="Threads for synchronous agents and tools, per process.")

    # How long
    heartbeat_seconds: FiniteFloat = Field(15.0, gt=0, description="Seconds of silence before a stream's heartbeat.")
    send_timeout_seconds: FiniteFloat = Field(30.0, gt=0, description="Seconds a client may take to accept a write.")
    shutdown_grace_seconds: int = Field(
        10, ge=0, description="Seconds that open requests have to end after SIGTERM or SIGINT."
    )

    # How loud
    log_level: LogLevel = Field("warning", description="Least severe log record shown; requests show at info.")

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies`, parsed."""
        return tuple(ip_network(each) for each in self.trusted_proxies)
