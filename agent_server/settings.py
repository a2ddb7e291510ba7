"""Settings of a server: defaults, overridden by `AGENT_SERVER_*` variables, overridden by arguments.

The core never reads the environment: the command line, or whoever calls `create_app`, hands it a `Settings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from secrets import token_hex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ToolItems = Literal["function_call", "mcp_call", "none"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]


def _split(value: Any) -> Any:
    """A comma-separated list, as the environment holds it."""
    return tuple(part for each in value.split(",") if (part := each.strip())) if isinstance(value, str) else value


def _variable(name: str, default: str | None = None) -> Callable[[], Any]:
    """A default that another platform's variable may name."""
    return lambda: os.environ.get(name) or default


def _chat_paths() -> str:
    """The paths of MLflow's AgentServer, and what its variables add to them."""
    names = ("CHAT_PROXY_ALLOWED_EXACT_PATHS", "CHAT_PROXY_ALLOWED_PATH_PREFIXES")
    return ",".join(["/,/favicon.ico,/ping,/assets/,/api/,/chat/", *(os.environ.get(name, "") for name in names)])


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        ip_network(each)
    return value


def _whole(value: Any) -> Any:
    """A number, as the environment holds it."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _store(value: str) -> str:
    if value != "memory" and not value.startswith(("sqlite:///", "postgresql://", "postgres://")):
        raise ValueError("it must be memory, sqlite:///path or postgresql://user@host/database")
    return value


class Settings(BaseSettings):
    """Everything an operator can set. A field's variable is `AGENT_SERVER_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="AGENT_SERVER_", env_ignore_empty=True, frozen=True, extra="forbid")

    # Where
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default_factory=_variable("DATABRICKS_APP_PORT", "8000"),
        ge=0,
        le=65535,
        validate_default=True,
        description="TCP port to listen on; 0 takes any free one. 8000, or DATABRICKS_APP_PORT.",
    )
    workers: int = Field(1, ge=1, description="Number of processes that serve the same port.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_networks)] = Field(
        (), description="Addresses or networks whose `x-forwarded-*` headers count; comma-separated."
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Origins of pages that may use the server beside its own, such as https://app.example; "
        "comma-separated, * for all.",
    )

    # What
    default_agent: str | None = Field(None, description="Agent of a request that names none; else the first.")
    store: Annotated[str, AfterValidator(_store)] = Field(
        "memory", description="Where runs are kept: memory, sqlite:///path or postgresql://user@host/database."
    )
    busy_conversation: Literal["reject", "enqueue", "interrupt", "rollback"] = Field(
        "reject", description="What happens to a request whose conversation is busy with another."
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Hosts that may be told of a run's end by a webhook, such as hooks.example; none by default."
    )
    secret: SecretStr = Field(
        default_factory=lambda: SecretStr(token_hex(32)),
        min_length=16,
        description="Signs what clients carry for the server, such as compacted conversations; by default made anew "
        "at each start, so that what was signed before is refused.",
    )
    tool_items_invocations: ToolItems = Field(
        "function_call", description="How `/invocations` shows the tools that ran on the server."
    )
    tool_items_responses: ToolItems = Field(
        "function_call", description="How `/responses` shows the tools that ran on the server."
    )
    tool_items_v1: ToolItems = Field(
        "mcp_call", description="How `/v1/responses` shows the tools that ran on the server."
    )
    ai_sdk_version: Annotated[Literal[5, 6, 7], BeforeValidator(_whole)] = Field(
        6, description="Version of the AI SDK that reads chats, unless a request names it; 5 knows no approvals."
    )
    ai_sdk_path: str | None = Field(
        None,
        pattern=r"^(/[\w.~-]+)+$",
        description="Path of the AI SDK's chats. /api/chat, unless a chat UI is served here, which has one there.",
    )
    event_source: Literal["tap", "astream_events"] = Field(
        "tap", description="Where a run's events come from: the lean tap, or LangChain's `astream_events`."
    )
    socket_events: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (
            "on_chat_model_stream",
            "on_chat_model_end",
            "on_tool_start",
            "on_tool_end",
            "on_tool_error",
            "on_custom_event",
        ),
        description="Kinds of LangChain's events that the WebSocket `langchain.v2` may show; comma-separated.",
    )

    # Beside it
    app_name: str | None = Field(
        default_factory=_variable("DATABRICKS_APP_NAME"), description="The server's name; else the default agent's."
    )
    tracing: bool | None = Field(
        None, description="Whether runs are traced in MLflow; by default if MLFLOW_TRACKING_URI is set."
    )
    trace_ratio: FiniteFloat = Field(1.0, ge=0, le=1, description="Share of the runs that are traced.")
    chat_proxy: bool = Field(False, description="Whether a chat UI on this machine is served here, too.")
    chat_app_port: int = Field(
        default_factory=_variable("CHAT_APP_PORT", "3000"),
        ge=1,
        le=65535,
        validate_default=True,
        description="TCP port of the chat UI. 3000, or CHAT_APP_PORT.",
    )
    chat_proxy_paths: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default_factory=_chat_paths,
        validate_default=True,
        description="Paths that go to the chat UI; one that ends with a slash stands for all below it.",
    )
    chat_proxy_timeout_seconds: FiniteFloat = Field(
        default_factory=_variable("CHAT_PROXY_TIMEOUT_SECONDS", "300"),
        gt=0,
        validate_default=True,
        description="Seconds that the chat UI may be silent. 300, or CHAT_PROXY_TIMEOUT_SECONDS.",
    )

    # How much
    max_body_bytes: int = Field(16 * 2**20, gt=0, description="Largest request body, in bytes.")
    max_concurrent_runs: int = Field(1000, gt=0, description="Runs at a time, per process; more get 503.")
    sync_threads: int = Field(40, gt=0, description="Threads for synchronous agents and tools, per process.")

    # How long
    heartbeat_seconds: FiniteFloat = Field(15.0, gt=0, description="Seconds of silence before a stream's heartbeat.")
    send_timeout_seconds: FiniteFloat = Field(
        30.0, gt=0, description="Seconds a client may accept nothing, or be gone without a word."
    )
    socket_timeout_seconds: FiniteFloat = Field(
        60.0, gt=0, description="Seconds for which a run over `/ws` may tell nothing before it is stopped."
    )
    shutdown_grace_seconds: int = Field(
        10, ge=0, description="Seconds that open requests have to end after SIGTERM or SIGINT."
    )

    on_disconnect: Literal["continue", "cancel"] = Field(
        "cancel", description="What becomes of a stored response that is not in the background when its client leaves."
    )
    retention_days: FiniteFloat = Field(7.0, ge=0, description="Days that stored responses are kept; 0 is for ever.")
    lease_seconds: FiniteFloat = Field(
        10.0, ge=1, description="Seconds after which the runs of a process that died are ended by another."
    )
    trace_flush_seconds: FiniteFloat = Field(
        5.0, ge=0, description="Seconds that traces have to reach the tracking server when this one ends."
    )

    # How loud
    log_level: LogLevel = Field("warning", description="Least severe log record shown; requests show at info.")

    @property
    def traces(self) -> bool:
        """Whether runs are traced, as far as is known now: the agent's own code may yet name a tracking server."""
        return "MLFLOW_TRACKING_URI" in os.environ if self.tracing is None else self.tracing

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking server, "" for MLflow's default."""
        return os.environ.get("MLFLOW_TRACKING_URI", "")

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies`, parsed."""
        return tuple(ip_network(each) for each in self.trusted_proxies)
