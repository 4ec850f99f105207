"""The one connection to the store: every reply is its asker's, and a store that comes back is used again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError

from reservation import pipe as pipes
from reservation.ids import digest_of
from reservation.kernel import Terms
from reservation.keys import ALL_SHARDS
from reservation.outcomes import Outcome, StoreUnavailable
from reservation.pipe import Pipe
from reservation.pipes import Pipes
from reservation.redis_store import RedisStore, connect_redis
from tests.contract.test_kernel import ENDS, SALE, first
from tests.servers import free_port, redis_server
from tests.settlement.running import proved
from tests.stack import eventually


class Server:
    """A Redis that can be killed, stopped and started again, with what it had."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program, self._home, self._port = program, home, free_port()
        self._running = ExitStack()
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._running.enter_context(redis_server(self._program, self._home, port=self._port))

    async def kill(self) -> None:
        async with Redis.from_url(self.url) as client:
            pid = (await client.info("server"))["process_id"]
        os.kill(pid, signal.SIGKILL)
        self._running.close()

    async def pid(self) -> int:
        async with Redis.from_url(self.url) as client:
            return int((await client.info("server"))["process_id"])

    def close(self) -> None:
        self._running.close()


@pytest.fixture
async def server(redis_program: Path, tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(redis_program, tmp_path)
    found.start()
    yield found
    found.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    client = connect_redis(server.url)
    yield client
    await client.aclose()


async def on_sale(store: RedisStore) -> Terms:
    await store.configure(SALE, 0, "running", b"{}", {"stock/phone": 1_000}, ENDS)
    return first()[0]


async def test_each_reply_is_its_askers(client: Redis) -> None:
    pipe = Pipe(client)
    replies = await asyncio.gather(*(pipe.call("ECHO", f"{n}") for n in range(3_000)))
    assert replies == [str(n).encode() for n in range(3_000)]


async def test_an_error_is_its_askers_only(client: Redis) -> None:
    pipe = Pipe(client)
    found = await asyncio.gather(
        pipe.call("ECHO", "one"), pipe.call("NONSENSE"), pipe.call("ECHO", "two"), return_exceptions=True
    )
    assert [found[0], found[2]] == [b"one", b"two"]
    assert isinstance(found[1], ResponseError)


async def test_who_gives_up_leaves_the_others_their_replies(client: Redis) -> None:
    pipe = Pipe(client)
    calls = [asyncio.create_task(pipe.call("ECHO", str(n))) for n in range(10)]
    await asyncio.sleep(0)
    calls[4].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found.pop(4), asyncio.CancelledError)
    assert found == [str(n).encode() for n in range(10) if n != 4]


async def test_a_store_that_went_is_said_at_once_and_one_that_came_back_is_used_again(
    server: Server, client: Redis
) -> None:
    store = RedisStore(client)
    terms = await on_sale(store)
    for life in range(2):
        assert (await store.reserve(terms, digest_of(SALE, "ann", str(life)), "ann")).outcome is Outcome.MOVED
        await server.kill()
        async with asyncio.timeout(2):
            for number in range(5):
                with pytest.raises(StoreUnavailable):
                    await store.reserve(terms, digest_of(SALE, "bob", f"{life}-{number}"), "bob")
                with pytest.raises(StoreUnavailable):
                    await store.now_ms()
        server.start()
        await proved(store)
        # The same terms, for which a group was asked in vain.
        asked = (store.reserve(terms, digest_of(SALE, user, str(life)), user) for user in ("cat", "dan"))
        assert {moved.outcome for moved in await asyncio.gather(*asked)} == {Outcome.MOVED}
    assert store.wait() == pytest.approx(0, abs=0.05), "nobody waits any more"


async def test_what_lay_idle_while_the_store_was_away_is_nobodys_next_connection(
    server: Server, client: Redis
) -> None:
    parts = Pipes(client)
    await asyncio.gather(*(client.ping() for _ in range(5)))  # as many connections lie idle now
    await server.kill()
    server.start()
    others = []

    async def look(client: Redis) -> bool:
        try:
            return bool(await client.ping())
        except ConnectionError:
            # Somebody else comes in between, and has the connection that was just found to be gone.
            others.append(await client.connection_pool.get_connection())
            raise

    assert await parts.apart(ALL_SHARDS[0], look, reads=True)
    assert len(others) == 1
    await client.connection_pool.release(others[0])


async def test_a_store_that_forgot_its_scripts_is_told_them_again(client: Redis) -> None:
    store = RedisStore(client)
    terms = await on_sale(store)
    for number in range(3):
        asked = (store.reserve(terms, digest_of(SALE, f"{n}", f"{number}"), f"{n}") for n in range(10))
        assert {moved.outcome for moved in await asyncio.gather(*asked)} == {Outcome.MOVED}
        await client.script_flush()


async def test_a_connection_that_ended_while_it_was_taken_over_is_not_waited_for(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, taken = client.connection_pool, []
    get_connection = pool.get_connection

    async def ends_meanwhile() -> object:
        connection = await get_connection()
        taken.append(connection)
        if len(taken) == 1:
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await eventually(lambda: done(connection._reader.at_eof()), bool)
        return connection

    async def done(ended: bool) -> bool:
        return ended

    monkeypatch.setattr(pool, "get_connection", ends_meanwhile)
    async with asyncio.timeout(2):
        assert await Pipe(client).call("ECHO", "there") == b"there"


async def test_a_store_that_does_not_answer_is_given_up(
    server: Server, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "REPLY_SECONDS_MAX", 0.2)
    pipe = Pipe(client)
    await pipe.call("ECHO", "before")
    pid = await server.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await pipe.call("ECHO", "too late")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await pipe.call("ECHO", "after") == b"after", "and not the reply that came too late"
