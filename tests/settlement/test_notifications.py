"""The merchant is told of each event that calls for it: one notification an event, sent until it is taken."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
import pytest
from aiohttp import web
from redis.asyncio import Redis
from structlog.testing import capture_logs

from reservation.envelope import Envelope
from reservation.ids import ReservationId
from reservation.keys import ALL_SHARDS
from reservation.record import Facts, Payment, PaymentStatus, Price
from reservation.tasks import end
from settlement.book import Book, NotificationDue
from settlement.notifications import BODY_BYTES_MAX, NOTIFIED
from settlement.notifier import SCHEDULE, SEND_SECONDS_MAX, Notifier, Recipient, Schedule
from settlement.projection import Malformed
from settlement.recipients import LogRecipient, WebhookRecipient
from tests.servers import free_port
from tests.stack import COMMAND, NOTIFY_KEY, SECRETS, eventually, sign

SECRET = SECRETS["DOORBUSTER_NOTIFY_SECRET"]
AT_MS = 1_793_000_000_000
DYING = """
import os, signal
from settlement.book import Book

async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

Book.note_notification_sent = die
from doorbuster.cli import main
main()
"""
Answer = Callable[[str], Awaitable[web.StreamResponse]]


def event(user: str, version: int, kind: str, state: str = "held", **data: Any) -> Envelope:
    """An event of a presale as the outbox holds it."""
    price = Price("CNY", 5000, 10_000, deposit=1000, deposit_worth=2000, balance=8000)
    paid = Payment("deposit", 1000, PaymentStatus.SUCCEEDED, AT_MS)
    record = {
        "state": state,
        "version": version,
        "user": user,
        "sku": "phone",
        "quantity": 2,
        "claims": [["stock/phone", 2]],
        "created_at": AT_MS,
        "updated_at": AT_MS + version,
        "deadline": 0 if state == "forfeited" else AT_MS + 900_000,
        "fingerprint": "",
        "facts": Facts("presale", price, {} if state == "held" else {"deposit": paid}).pack().decode(),
    }
    name = str(ReservationId.derive("drop", user, user))
    return {"type": kind, "id": name, "record": record, "data": data}


def life(user: str) -> list[Envelope]:
    """A reservation of which the merchant is told four times."""
    return [
        event(user, 1, "offered"),
        event(user, 2, "payment_requested"),
        event(user, 3, "payment_succeeded", "deposit_paid"),
        event(user, 4, "balance_opened", "deposit_paid", due_by=AT_MS + 9_000_000, amount=8000),
        event(user, 5, "balance_reminder", "deposit_paid", due_by=AT_MS + 9_000_000, amount=8000),
        event(user, 6, "forfeited", "forfeited"),
    ]


@dataclass
class Receiver:
    """The merchant's systems: what they were sent, and what they answer."""

    url: str = ""
    answer: Answer | None = None
    bodies: list[Any] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        body, name = await request.read(), request.headers["webhook-id"]
        stamp = float(request.headers["webhook-timestamp"])
        if not sign(body, key=NOTIFY_KEY, at=stamp, message_id=name).items() <= {**request.headers}.items():
            self.forged.append(name)
        self.ids.append(name)
        self.bodies.append(orjson.loads(body))
        return await self.answer(name) if self.answer else web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    app.router.add_route("*", "/elsewhere", found.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()
    assert found.forged == []


@asynccontextmanager
async def webhook(receiver: Receiver) -> AsyncIterator[WebhookRecipient]:
    recipient = WebhookRecipient(f"{receiver.url}/hook", SECRET)
    yield recipient
    await recipient.close()


@asynccontextmanager
async def talker(said: bytes | None, *, closes: bool = False) -> AsyncIterator[WebhookRecipient]:
    """A recipient that says just this, whatever it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if said is not None:
            writer.write(said)
        if not closes:
            await ended.wait()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    recipient = WebhookRecipient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", SECRET)
    yield recipient
    ended.set()
    await recipient.close()
    server.close()
    await server.wait_closed()


@asynccontextmanager
async def notifying(book: Book, recipient: Recipient, **options: Any) -> AsyncIterator[None]:
    running = asyncio.create_task(Notifier(book, recipient, **options).run())
    yield
    assert not running.done(), running.exception()
    await end(running)


def rows(dsn: str, columns: str = "notification_id, type, status, attempts, last_error") -> list[Any]:
    with psycopg.connect(dsn) as connection:
        query = f"SELECT {columns} FROM notifications ORDER BY notification_id"
        return connection.execute(query).fetchall()


def statuses(dsn: str) -> Counter[str]:
    return Counter(row[0] for row in rows(dsn, "status"))


async def come_to(dsn: str, expected: Mapping[str, int]) -> None:
    """Wait until so many notifications have these statuses."""
    await eventually(lambda: asyncio.to_thread(statuses, dsn), lambda found: found == expected)


def make_due(dsn: str) -> None:
    """As if the time of the next attempt had come."""
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE notifications SET next_attempt_at = now()")


async def take(book: Book, schedule: Schedule = SCHEDULE) -> list[NotificationDue]:
    return await book.notifications_to_send(100, schedule.seconds_min, schedule.seconds_max)


async def test_an_event_is_one_notification_however_often_and_in_whatever_order_it_comes(
    book: Book, postgres_dsn: str
) -> None:
    events = [one for user in ("ann", "bob") for one in life(user)]
    expected = {f"{one['id']}.{one['record']['version']}" for one in events if one["type"] in NOTIFIED}
    assert len(expected) == 8
    dice = random.Random(7)
    for _ in range(20):
        shuffled = events + dice.choices(events, k=10)
        dice.shuffle(shuffled)
        while shuffled:
            size = dice.randint(1, 5)
            await book.settle(shuffled[:size])
            del shuffled[:size]
        assert {row[0] for row in rows(postgres_dsn)} == expected
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE orders, order_events, notifications")


async def test_an_event_that_comes_again_is_not_sent_again(
    book: Book, postgres_dsn: str, receiver: Receiver
) -> None:
    async with webhook(receiver) as recipient, notifying(book, recipient):
        await book.settle(life("ann"))
        await come_to(postgres_dsn, {"sent": 4})
        await book.settle(life("ann"))
        await book.settle(life("bob"))
        await come_to(postgres_dsn, {"sent": 8})
    assert set(Counter(receiver.ids).values()) == {1}


async def test_what_the_merchant_is_told(book: Book, receiver: Receiver, postgres_dsn: str) -> None:
    events = life("安娜")
    name = events[0]["id"]
    await book.settle(events)
    async with webhook(receiver) as recipient, notifying(book, recipient):
        await come_to(postgres_dsn, {"sent": 4})
    offered, opened, reminded, forfeited = sorted(receiver.bodies, key=lambda body: body["timestamp"])
    assert offered == {
        "type": "reservation.offered",
        "timestamp": "2026-10-26T07:33:20.001Z",
        "data": {
            "reservation_id": name,
            "campaign": "drop",
            "kind": "presale",
            "sku": "phone",
            "user": "安娜",
            "quantity": 2,
            "state": "held",
            "version": 1,
            "due": {"stage": "deposit", "amount": 1000, "currency": "CNY", "by": "2026-10-26T07:48:20.000Z"},
            "details": {},
        },
    }
    # By when the balance is due, and not when there is the next reminder.
    balance = {"stage": "balance", "amount": 8000, "currency": "CNY", "by": "2026-10-26T10:03:20.000Z"}
    assert (opened["type"], opened["data"]["due"]) == ("reservation.balance_opened", balance)
    assert (reminded["type"], reminded["data"]["due"]) == ("reservation.balance_reminder", balance)
    assert reminded["data"]["details"] == {"amount": 8000}
    assert (forfeited["type"], forfeited["data"]["due"]) == ("reservation.forfeited", None)
    assert sorted(receiver.ids) == [f"{name}.{version}" for version in (1, 4, 5, 6)]


async def test_a_body_has_its_limit(book: Book, postgres_dsn: str) -> None:
    await book.settle([event("ann", 1, "offered", note="x" * BODY_BYTES_MAX), event("bob", 1, "offered")])
    for notification in await take(book):
        assert len(orjson.dumps(notification.body)) <= BODY_BYTES_MAX
        assert notification.body["data"]["details"] == {}


async def test_what_is_no_event_is_set_aside_and_not_a_crash(book: Book) -> None:
    for data in ([1], {"due_by": "soon"}):
        with pytest.raises(Malformed):
            await book.settle([event("ann", 1, "offered") | {"data": data}])


async def test_a_kind_that_only_newer_processes_know_is_told_and_settled(
    book: Book, postgres_dsn: str
) -> None:
    told = event("ann", 1, "offered")
    told["record"]["facts"] = Facts("auction", Price("CNY", 1, 1)).pack().decode()
    await book.settle([told])
    (notification,) = await take(book)
    assert notification.body["data"]["due"] is None


async def test_it_is_sent_until_it_is_taken_further_and_further_apart(
    book: Book, postgres_dsn: str, receiver: Receiver
) -> None:
    await book.settle([event("ann", 1, "forfeited", "forfeited")])
    answers = iter([500, 302, 404, 500, 500, 204])

    async def answer(_: str) -> web.Response:
        return web.Response(status=next(answers), headers={"Location": "/elsewhere"})

    receiver.answer = answer
    schedule = Schedule(seconds_min=20, seconds_max=100, attempts_max=10)
    distances = []
    async with webhook(receiver) as recipient:
        notifier = Notifier(book, recipient, schedule=schedule)
        while statuses(postgres_dsn) == {"pending": 1}:
            make_due(postgres_dsn)
            (due,) = await take(book, schedule)
            ((seconds,),) = rows(postgres_dsn, "extract(epoch FROM next_attempt_at - clock_timestamp())")
            distances.append(float(seconds))
            assert await take(book, schedule) == [], "it is one caller's, and not due again so soon"
            await notifier.send(due)
    assert statuses(postgres_dsn) == {"sent": 1}
    assert receiver.ids == receiver.ids[:1] * 6, "and a redirect was not followed"
    for distance, middle in zip(distances, (20, 40, 80, 100, 100, 100), strict=True):
        assert middle * 0.75 - 2 < distance <= middle * 1.25
    assert len(set(distances)) == 6, "never in step"
    make_due(postgres_dsn)
    assert await take(book) == [], "what was sent is never due"


def test_the_schedule_is_about_three_days_and_no_attempt_overlaps_the_next() -> None:
    gaps = [min(SCHEDULE.seconds_min * 2**n, SCHEDULE.seconds_max) for n in range(SCHEDULE.attempts_max - 1)]
    assert 2.5 < sum(gaps) / 86_400 < 3.5
    assert SCHEDULE.seconds_min * 0.75 > SEND_SECONDS_MAX


async def test_it_is_given_up_in_the_end_and_said_aloud(
    book: Book, postgres_dsn: str, receiver: Receiver
) -> None:
    async def refuse(_: str) -> web.Response:
        return web.Response(status=503)

    receiver.answer = refuse
    await book.settle([event("ann", 1, "balance_opened")])
    with capture_logs() as logs:
        async with webhook(receiver) as recipient:
            notifier = Notifier(book, recipient, schedule=Schedule(20, 100, attempts_max=3))
            for _ in range(3):
                assert statuses(postgres_dsn) == {"pending": 1}
                make_due(postgres_dsn)
                (due,) = await take(book)
                await notifier.send(due)
    ((name, kind, status, attempts, error),) = rows(postgres_dsn)
    assert (kind, status, attempts) == ("balance_opened", "failed", 3)
    assert error == "the recipient answered 503"
    assert [line["log_level"] for line in logs] == ["warning", "warning", "error"]
    assert (logs[-1]["event"], logs[-1]["notification_id"]) == ("notification_failed", name)


@pytest.mark.parametrize("status", [500, 404, 401, 429, 301, 307, 410])
async def test_what_is_no_yes_is_no(book: Book, postgres_dsn: str, receiver: Receiver, status: int) -> None:
    async def answer(_: str) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    receiver.answer = answer
    await book.settle([event("ann", 1, "offered")])
    async with webhook(receiver) as recipient, notifying(book, recipient):
        await eventually(lambda: asyncio.to_thread(rows, postgres_dsn), lambda found: found[0][4] is not None)
    ((_, _, after, attempts, error),) = rows(postgres_dsn)
    assert after == ("failed" if status == 410 else "pending"), "who is gone is not asked again"
    assert (attempts, error) == (1, f"the recipient answered {status}")
    assert len(receiver.ids) == 1


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        (b"", True),
        (b"\x00\xff\xfe what is HTTP?\r\n\r\n", True),
        (b"HTTP/1.1 200\x00\xed\xa0\x80 OK\r\nx: \xff\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", True),
        (b"HTTP/1.1 ", False),
        (None, False),
    ],
    ids=["hangs up", "no HTTP", "almost HTTP", "endless header", "stops in the middle", "never answers"],
)
async def test_a_broken_recipient_is_tried_again(
    book: Book, postgres_dsn: str, said: bytes | None, closes: bool
) -> None:
    await book.settle([event("ann", 1, "offered")])
    async with talker(said, closes=closes) as recipient, notifying(book, recipient, seconds_max=0.3):
        await eventually(lambda: asyncio.to_thread(rows, postgres_dsn), lambda found: found[0][4] is not None)
    ((_, _, status, attempts, error),) = rows(postgres_dsn)
    assert (status, attempts) == ("pending", 1)
    assert error.isprintable()
    assert len(error) <= 300


async def test_a_recipient_that_is_not_there_is_tried_again(book: Book, postgres_dsn: str) -> None:
    await book.settle([event("ann", 1, "offered")])
    recipient = WebhookRecipient(f"http://127.0.0.1:{free_port()}/hook", SECRET)
    async with notifying(book, recipient):
        await eventually(lambda: asyncio.to_thread(rows, postgres_dsn), lambda found: found[0][4] is not None)
    await recipient.close()
    assert "Cannot connect" in rows(postgres_dsn)[0][4]


async def test_a_yes_is_a_yes_whatever_else_is_said(book: Book, postgres_dsn: str) -> None:
    """A body that does not end, and is not what it claims to be, is not read."""
    said = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9999999999\r\n\r\nx"
    await book.settle([event("ann", 1, "offered")])
    async with talker(said) as recipient, notifying(book, recipient):
        await come_to(postgres_dsn, {"sent": 1})


async def test_one_that_hangs_holds_up_neither_the_others_nor_settlement(
    book: Book, postgres_dsn: str, receiver: Receiver
) -> None:
    hanging = f"{event('ann', 1, 'offered')['id']}.1"

    async def answer(name: str) -> web.Response:
        if name == hanging:
            await asyncio.Event().wait()
        return web.Response()

    receiver.answer = answer
    await book.settle([event("ann", 1, "offered")])
    async with webhook(receiver) as recipient, notifying(book, recipient, seconds_max=600):
        await eventually(lambda: asyncio.sleep(0, receiver.ids), lambda ids: hanging in ids)
        await book.settle([event(f"user-{n}", 1, "offered") for n in range(100)])
        await come_to(postgres_dsn, {"sent": 100, "pending": 1})
        await book.settle([event("late", 1, "offered")])
        await come_to(postgres_dsn, {"sent": 101, "pending": 1})
    assert len(receiver.ids) == 102


async def test_two_notifiers_send_each_once(book: Book, postgres_dsn: str, receiver: Receiver) -> None:
    await book.settle([event(f"user-{n}", 1, "balance_opened") for n in range(300)])
    other = Book(postgres_dsn)
    await other.open()
    async with (
        webhook(receiver) as one,
        webhook(receiver) as two,
        notifying(book, one),
        notifying(other, two),
    ):
        await come_to(postgres_dsn, {"sent": 300})
    await other.close()
    assert len(receiver.ids) == len(set(receiver.ids)) == 300


async def test_whoever_was_told_no_does_not_undo_a_yes(book: Book, postgres_dsn: str) -> None:
    await book.settle([event("ann", 1, "offered"), event("bob", 1, "offered")])
    ann, bob = sorted(one.notification_id for one in await take(book))
    await book.note_notification_sent(ann)
    await book.note_notification_not_sent(ann, "gone", give_up=True)
    await book.note_notification_not_sent(bob, "gone", give_up=True)
    await book.note_notification_sent(bob)
    assert statuses(postgres_dsn) == {"sent": 2}


@contextmanager
def worker(code: str, redis_url: str, dsn: str, receiver: Receiver) -> Iterator[subprocess.Popen[bytes]]:
    """The role as a process, which ends with the block."""
    environment = {
        "DOORBUSTER_REDIS_URL": redis_url,
        "DOORBUSTER_POSTGRES_DSN": dsn,
        "DOORBUSTER_NOTIFY_URL": f"{receiver.url}/hook",
    }
    command = [sys.executable, "-c", code, "worker"]
    process = subprocess.Popen(command, env={**os.environ, **SECRETS, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_worker_killed_between_sending_and_noting_sends_again_under_the_same_id(
    book: Book, postgres_dsn: str, receiver: Receiver, redis_server_url: str, redis_client: Redis
) -> None:
    await book.settle([event("ann", 1, "forfeited", "forfeited")])
    with worker(DYING, redis_server_url, postgres_dsn, receiver) as process:
        assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
    assert len(receiver.ids) == 1
    assert statuses(postgres_dsn) == {"pending": 1}
    make_due(postgres_dsn)
    code = "from doorbuster.cli import main; main()"
    with worker(code, redis_server_url, postgres_dsn, receiver) as process:
        await come_to(postgres_dsn, {"sent": 1})
        # It has begun its other work too.
        await eventually(lambda: redis_client.exists(ALL_SHARDS[-1].outbox), bool)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert receiver.ids == receiver.ids[:1] * 2
    assert receiver.bodies[0] == receiver.bodies[1]


async def test_the_log_takes_everything_and_is_not_told_whom_it_is_about(
    book: Book, postgres_dsn: str
) -> None:
    await book.settle([event("ann", 1, "offered")])
    with capture_logs() as logs:
        async with notifying(book, LogRecipient()):
            await come_to(postgres_dsn, {"sent": 1})
    (line,) = logs
    assert (line["event"], line["type"]) == ("notification", "reservation.offered")
    assert line["data"]["reservation_id"] == line["notification_id"].rpartition(".")[0]
    assert "ann" not in repr(line)


async def test_a_book_that_goes_away_is_waited_for(postgres_dsn: str, receiver: Receiver) -> None:
    book = Book(postgres_dsn)
    await book.open()
    async with webhook(receiver) as recipient, notifying(book, recipient):
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await book.settle([event("ann", 1, "offered")])
        await come_to(postgres_dsn, {"sent": 1})
    await book.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"DOORBUSTER_NOTIFY_SECRET": ""}, "DOORBUSTER_NOTIFY_SECRET: is not set"),
        ({"DOORBUSTER_NOTIFY_SECRET": "abc"}, "DOORBUSTER_NOTIFY_SECRET: must be whsec_ followed by base64"),
        ({"DOORBUSTER_NOTIFY_URL": "merchant"}, "DOORBUSTER_NOTIFY_URL: must start with http://"),
    ],
)
def test_a_wrong_setting_stops_the_worker_with_one_clear_line(given: dict[str, str], said: str) -> None:
    environment = {
        "DOORBUSTER_REDIS_URL": "redis://127.0.0.1:1/0",
        "DOORBUSTER_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none",
        "DOORBUSTER_NOTIFY_URL": "http://127.0.0.1:1/hook",
    }
    done = subprocess.run(
        [*COMMAND, "worker"],
        capture_output=True,
        text=True,
        env={**os.environ, **SECRETS, **environment, **given},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"doorbuster: {said}")
    assert done.stderr.count("\n") == 1
