"""A connection's two lanes, seen from where they meet."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast
from unittest.mock import Mock

from aiohttp import web

from gateway.connection import Connection
from gateway.fast_lane import FastLane, Way

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


class Lane:
    """Takes everything, and keeps it."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, Any, Way]] = []

    def take(self, message: Any, payload: Any, way: Way) -> bool:
        self.taken.append((message, payload, way))
        return True


async def _ordinary(request: web.BaseRequest) -> web.Response:
    return web.Response(text=await request.text())


async def connected(lane: Lane) -> tuple[Connection, Mock]:
    loop = asyncio.get_running_loop()
    connection = Connection(web.Server(_ordinary), cast("FastLane", lane), loop=loop)
    transport = Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    connection.connection_made(transport)
    await turns()  # it waits for its first request
    return connection, transport


async def turns() -> None:
    """Let all that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_does_not_take_their_answers_goes_the_ordinary_way_and_waits() -> None:
    lane = Lane()
    connection, transport = await connected(lane)
    connection.data_received(REQUEST)
    assert len(lane.taken) == 1
    lane.taken[0][2].answer(b"the answer")
    transport.write.assert_called_once_with(b"the answer")
    connection.pause_writing()
    connection.data_received(REQUEST)
    await turns()
    assert len(lane.taken) == 1, "not on the fast lane, which waits for nobody"
    connection.resume_writing()
    await turns()
    assert b"200 OK" in b"".join(
        b"".join(part for part in call.args) for call in transport.write.call_args_list
    )
    connection.data_received(REQUEST)
    assert len(lane.taken) == 2
    lane.taken[1][2].answer(b"the answer")
    connection.connection_lost(None)


async def test_who_leaves_while_their_request_is_handed_back_is_nobodys_error() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    lane = Lane()
    connection, _ = await connected(lane)
    connection.data_received(REQUEST)
    ((message, payload, way),) = lane.taken
    way.hand_back(message, payload)
    connection.connection_lost(None)
    await turns()
    del connection, way, message, payload, lane
    gc.collect()
    assert said == []
