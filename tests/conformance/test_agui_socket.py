"""`agui.v1` over `/ws`, judged by the official AG-UI client, and by the rules of `/ws`."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conformance import node_judges
from tests.support.scripted import SCENARIOS
from tests.support.serve import serving
from tests.support.ws import opened

INPUT = {"threadId": "t1", "runId": "run-1", "messages": [{"id": "m1", "role": "user", "content": "Hi"}]}
ENDS = ("RUN_FINISHED", "RUN_ERROR")


@pytest.mark.node
def test_the_official_client_warns_of_nothing_and_has_the_messages_in_order() -> None:
    node_judges.ready()
    with serving(SCENARIOS) as url:
        tasks = [
            {"baseURL": url, "agent": "text_tool_text", "says": ["Hi", "Again"]},
            {"baseURL": url, "agent": "two_nodes_streaming_at_once", "says": ["Hi"]},
            {"baseURL": url, "agent": "two_parallel_tools", "says": ["Hi"]},
        ]
        done = subprocess.run(
            ["node", "--experimental-websocket", "--no-warnings", "agui_socket.mjs"],
            cwd=node_judges.FOLDER,
            input=json.dumps(tasks),
            capture_output=True,
            text=True,
            check=False,
            timeout=node_judges.PATIENCE,
        )
    assert done.returncode == 0, done.stderr
    talk, nodes, tools = json.loads(done.stdout)
    assert [verdict["noise"] for verdict in (talk, nodes, tools)] == [[], [], []]
    turn = [["assistant", "Let me look. ", 1], ["tool", "It is sunny in Oslo.", 0]]
    turn.append(["assistant", "It is sunny in Oslo.", 0])
    assert talk["messages"] == [["user", "Hi", 0], *turn, ["user", "Again", 0], *turn]
    assert [role for role, _, _ in tools["messages"]] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [role for role, _, _ in nodes["messages"]] == ["user", "assistant", "assistant"]


async def test_a_frame_is_one_event_and_a_resume_tells_the_rest() -> None:
    with serving(SCENARIOS) as url:
        async with opened(url, "agui.v1") as socket:
            await socket.send("run", input=INPUT, agent="text_tool_text")
            whole = await socket.until(*ENDS)
            assert [event["metadata"] for event in whole] == [
                {"requestId": "r1", "sequence": number} for number in range(len(whole))
            ]
            assert (whole[0]["runId"], whole[-1]["type"]) == ("run-1", "RUN_FINISHED")
            for place in (0, 7, len(whole) - 2, len(whole) - 1):
                await socket.send("resume", threadId="t1", lastSequence=place, requestId="again")
                rest = await socket.until(*ENDS)
                assert [_bare(event) for event in rest] == [
                    _bare(event) for event in whole[min(place + 1, len(whole) - 1) :]
                ]


async def test_what_cannot_be_run_is_one_run_error() -> None:
    with serving(SCENARIOS) as url:
        async with opened(url, "agui.v1") as socket:
            for body, status in (({"input": {}}, 400), ({}, 400), ({"input": INPUT, "agent": "nobody"}, 404)):
                await socket.send("run", **body)
                (error,) = await socket.until(*ENDS)
                assert (error["type"], error["metadata"]["status"]) == ("RUN_ERROR", status)


def _bare(event: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in event.items() if key != "metadata"}
