"""The bare framework: read JSON, answer JSON. What a server on aiohttp could reach if it did nothing.

python -m loadtests.peers.echo PORT
"""

from __future__ import annotations

import gc
import sys

import orjson
import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    wanted = orjson.loads(await request.read())
    return web.Response(body=orjson.dumps(wanted), status=201, content_type="application/json")


def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/campaigns/bench/reservations", echo)
    gc.freeze()
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
