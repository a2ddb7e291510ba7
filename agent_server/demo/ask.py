"""What `make demo` runs: a server process, one question through the openai client, every event as it arrives."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

QUESTION = "What time is it in Tokyo?"
READY_SECONDS = 900.0  # the model may have to be fetched first
END_SECONDS = 15.0


@click.command()
@click.argument("question", default=QUESTION)
@click.option("--port", default=8000, show_default=True, help="Port of the server; another one if it is taken.")
@click.option("--keep", is_flag=True, help="Leave the server running until Ctrl-C.")
def main(question: str, port: int, keep: bool) -> None:
    """Serve the demo agent, ask it QUESTION, print every streamed event, and check what came."""
    port = _free_port(port)
    with _server(port) as process:
        _wait_until_ready(process, port)
        missing = _ask(f"http://127.0.0.1:{port}/v1", question)
        if missing:
            click.echo(f"Something is missing from the stream: {missing}.", err=True)
            sys.exit(1)
        if keep:
            click.echo(f"Serving on http://127.0.0.1:{port} until Ctrl-C.")
            process.wait()


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise click.ClickException("There is no free port.")


@contextmanager
def _server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "agent_server", "serve", "demo=agent_server.demo.agent:agent", "--port", str(port)]
    process = subprocess.Popen(command)  # noqa: S603 - our own interpreter, fixed arguments
    try:
        yield process
    except KeyboardInterrupt:
        click.echo()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise click.ClickException(f"The server ended with exit code {process.returncode}.")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise click.ClickException("The server was not ready in time.")


def _ask(base_url: str, question: str) -> str:
    """Print the stream of one question; what it lacks, or "" when it is whole."""
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120)
    click.echo(f"> {question}\n")
    kinds: Counter[str] = Counter()
    items: list[dict[str, Any]] = []
    stream = client.responses.create(
        model="demo", input=question, stream=True, extra_headers={"x-tool-items": "function_call"}
    )
    for event in stream:
        payload = event.model_dump(exclude_unset=True)
        click.echo(f"{click.style(event.type, bold=True)}  {json.dumps(payload, ensure_ascii=False)}")
        kinds[event.type] += 1
        if event.type == "response.completed":
            items = payload["response"]["output"]
            click.echo(f"\n< {event.response.output_text}")
    return _missing(question, kinds, items)


def _missing(question: str, kinds: Counter[str], items: list[dict[str, Any]]) -> str:
    calls = {item["call_id"]: item for item in items if item["type"] == "function_call"}
    outputs = [item for item in items if item["type"] == "function_call_output" and item["call_id"] in calls]
    needed = {
        "exactly one completed response": kinds["response.completed"] == 1,
        "text deltas": kinds["response.output_text.delta"] > 0,
    }
    if question == QUESTION:
        arguments = [json.loads(c["arguments"]) for c in calls.values() if c["name"] == "get_current_time"]
        needed["a call of get_current_time for Asia/Tokyo"] = {"timezone": "Asia/Tokyo"} in arguments
        needed["the output of the call"] = any(output["output"] for output in outputs)
    return ", ".join(what for what, there in needed.items() if not there)
