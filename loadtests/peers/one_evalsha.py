"""aiohttp and redis-py: a connection from the pool and one EVALSHA for every request.

python -m loadtests.peers.one_evalsha PORT REDIS_PORT PLAN
"""

from __future__ import annotations

import gc
import sys
from base64 import b64decode
from hashlib import md5
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web
from redis.asyncio import ConnectionPool, Redis

CONNECTIONS_MAX = 256


class Reservations:
    """The endpoint, on the plan's script."""

    def __init__(self, client: Redis, plan: dict[str, Any]) -> None:
        self._client = client
        self._plan = plan
        self._keys = plan["keys"]
        self._args = [b64decode(argument) for argument in plan["args"]]
        self._sha = ""

    async def open(self, app: web.Application) -> None:
        self._sha = await self._client.script_load(self._plan["script"])

    async def reserve(self, request: web.Request) -> web.Response:
        plan = self._plan
        user = request.headers["X-User"]
        named = f"{user}:{request.headers['Idempotency-Key']}"
        digest = md5(named.encode(), usedforsecurity=False).hexdigest()[: plan["digest_chars"]]
        wanted = orjson.loads(await request.read())
        args: list[Any] = self._args.copy()
        args[plan["digest_at"]] = digest
        args[plan["user_at"]] = user
        reply: list[Any] = await self._client.evalsha(self._sha, len(self._keys), *self._keys, *args)
        outcome = reply[plan["outcome_at"]]
        if outcome != b"moved":
            return _json(409, {"code": outcome.decode()})
        return _json(
            201,
            {
                "id": f"{plan['campaign']}.{digest}",
                "sku": wanted["sku"],
                "quantity": wanted["quantity"],
                "user": user,
                "state": "held",
            },
        )


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def main() -> None:
    port, redis_port, plan = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    pool: ConnectionPool = ConnectionPool(host="127.0.0.1", port=redis_port, max_connections=CONNECTIONS_MAX)
    reservations = Reservations(Redis(connection_pool=pool), orjson.loads(plan.read_bytes()))
    app = web.Application()
    app.router.add_post("/v1/campaigns/bench/reservations", reservations.reserve)
    app.on_startup.append(reservations.open)
    gc.freeze()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
