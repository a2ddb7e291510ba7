"""The command line: `agent-server serve [TARGET]...`, `agent-server log-model TARGET` and `agent-server migrate`.

Heavy imports wait until there is something to serve, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_server import __version__

if TYPE_CHECKING:
    from agent_server.settings import Settings

MOUNTS = ("invocations", "responses", "v1")
STYLES = ("function_call", "mcp_call", "none")
LEVELS = ("critical", "error", "warning", "info", "debug")
STORE = "sqlite:///.agent_server/runs.db"
STORES = "Where runs are kept: memory, sqlite:///path or postgresql://user@host/database"


def _tool_items(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`STYLE` for every mount, or `MOUNT=STYLE` for one; later ones win."""
    settings: dict[str, str] = {}
    for value in values:
        mount, equals, style = value.rpartition("=")
        if style not in STYLES or (equals and mount not in MOUNTS):
            raise click.BadParameter(f"{value!r} is none of {', '.join(STYLES)}, nor MOUNT= and one of them.")
        settings |= {f"tool_items_{each}": style for each in ([mount] if equals else MOUNTS)}
    return settings


def _store(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and value != "memory" and not value.startswith(("sqlite:///", "postgres://", "postgresql://")):
        raise click.BadParameter("It is none of memory, sqlite:///path, postgresql://user@host/database.")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agent-server")
def cli() -> None:
    """Serve any LangChain or LangGraph agent over the OpenAI Responses API."""


@cli.command()
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 8000]")
@click.option("--workers", type=click.IntRange(1), help="Number of processes.  [default: 1]")
@click.option("--tracing/--no-tracing", default=None, help="Trace runs in MLflow.  [default: with MLFLOW_TRACKING_URI]")
@click.option("--chat-proxy", is_flag=True, default=None, help="Serve the chat UI that runs on CHAT_APP_PORT, too.")
@click.option("--store", metavar="URL", callback=_store, help=f"{STORES}.  [default: {STORE}]")
@click.option("--log-level", type=click.Choice(LEVELS), help="Least severe record shown.  [default: warning]")
@click.option(
    "--tool-items",
    metavar="[MOUNT=]STYLE",
    multiple=True,
    callback=_tool_items,
    help=f"How the tools that ran on the server are shown: {', '.join(STYLES)}; for one of "
    f"{', '.join(MOUNTS)}, or for all. May be repeated.",
)
def serve(targets: tuple[str, ...], tool_items: dict[str, str], **given: Any) -> None:
    """Serve agents over HTTP.

    A TARGET is path/file.py:attribute or module:attribute, with NAME= before it at will; the attribute may be
    left out where it is obvious. A model in MLflow is one, too: models:/name/version, models:/name@alias or
    runs:/run/path. Without a TARGET, langgraph.json in this folder names the agents; without
    that, the demo agent is served.

    Every setting is also a variable AGENT_SERVER_*, such as AGENT_SERVER_PORT; options win.
    """
    options = {name: value for name, value in given.items() if value is not None}
    settings = _settings({**_stored(), **options, **tool_items})

    from agent_server import serving

    def run() -> int:
        with serving.bind(settings.host, settings.port) as sock:
            url = _url(*sock.getsockname()[:2])
            plan = serving.Plan(targets, Path.cwd(), settings)

            def announce(names: Sequence[str]) -> None:
                click.echo(f"agent-server listening on {url} (agents: {', '.join(names)})")

            if settings.workers > 1:
                return serving.Supervisor(plan, sock, announce).run()
            serving.serve(plan, sock, announce)
            return 0

    sys.exit(serving.exit_code(run))


@cli.command()
@click.argument("target")
@click.option("--name", default="agent", show_default=True, help="Name of the logged model.")
@click.option("--register", metavar="MODEL", help="Name to register a version of it under.")
@click.option("--tracking-uri", metavar="URI", help="MLflow's tracking store.  [default: MLFLOW_TRACKING_URI]")
@click.option("--run-example", is_flag=True, help="Ask the agent the input example, which is not done otherwise.")
def log_model(target: str, name: str, register: str | None, tracking_uri: str | None, run_example: bool) -> None:
    """Log an agent as an MLflow model.

    TARGET is path/file.py:attribute or module:attribute. The model holds the agent's own modules, and pins the
    distributions that they import at the versions installed here.
    """
    from agent_server import serving
    from agent_server.graph.agent import blaming

    def run() -> int:
        with blaming("log-model needs MLflow"):
            import mlflow

            from agent_server.mlflow_models import log_agent

        if tracking_uri is not None:
            mlflow.set_tracking_uri(tracking_uri)
        with blaming(f"The agent {target!r} cannot be logged"):
            info = log_agent(target, name=name, registered_model_name=register, run_example=run_example)
        version = f"models:/{register}/{info.registered_model_version}" if register else info.model_uri
        click.echo(f"logged {info.model_uri}")
        click.echo(f"serve it: agent-server serve {version}")
        return 0

    sys.exit(serving.exit_code(run))


@cli.command()
@click.option("--store", metavar="URL", callback=_store, help=f"{STORES}.  [default: {STORE}]")
def migrate(store: str | None) -> None:
    """Make or update the tables of a store, without serving.

    `serve` does the same when it starts. A store that a newer agent-server made is left as it is.
    """
    url = _settings(_stored()).store if store is None else store

    import asyncio

    from agent_server import serving
    from agent_server.runs.stores.url import migrate_store

    def run() -> int:
        asyncio.run(migrate_store(url))
        click.echo("the store is up to date")
        return 0

    sys.exit(serving.exit_code(run))


def _stored() -> dict[str, Any]:
    """Where a server keeps its runs that is not told: in a file, so that they outlive it."""
    return {} if os.environ.get("AGENT_SERVER_STORE") else {"store": STORE}


def _settings(options: dict[str, Any]) -> Settings:
    """Options over environment over defaults; bad values end the command with 2 and a line for each."""
    from pydantic import ValidationError

    from agent_server.settings import Settings

    try:
        return Settings(**options)
    except ValidationError as error:
        for each in error.errors():
            said = each["msg"].removeprefix("Value error, ")
            click.echo(f"agent-server: AGENT_SERVER_{str(each['loc'][0]).upper()}: {said}", err=True)
        sys.exit(2)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="agent-server")


if __name__ == "__main__":
    main()
