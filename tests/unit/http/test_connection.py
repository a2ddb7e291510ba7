"""The event that each connection waits with."""

from __future__ import annotations

import asyncio

from agent_server.http.connection import Flag


async def test_everybody_who_waits_for_a_flag_is_woken_when_it_is_set() -> None:
    flag = Flag()
    waiting = [asyncio.ensure_future(flag.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    flag.set()
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_a_flag_that_is_set_keeps_nobody_waiting_until_it_is_cleared() -> None:
    flag = Flag(is_set=True)
    assert flag.is_set()
    assert await flag.wait()
    flag.clear()
    assert not flag.is_set()
    waiting = asyncio.ensure_future(flag.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    flag.set()
    await waiting


async def test_who_stops_waiting_for_a_flag_leaves_the_others_theirs() -> None:
    flag = Flag()
    leaving, staying = asyncio.ensure_future(flag.wait()), asyncio.ensure_future(flag.wait())
    await asyncio.sleep(0)
    leaving.cancel()
    flag.set()
    await asyncio.wait({leaving, staying})
    assert leaving.cancelled()
    assert staying.result()
