"""Without history: NOTIFY alone, through both drivers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import psycopg
import pytest

from channels_core.backend import ChannelsBackend, Publication
from channels_core.events import Event
from channels_core.exceptions import BackendConnectionError, BackendError, MessageTooLarge, NotStarted
from channels_harness.brokers import Broker

from .support import DEADLINE, MakeBackend, Reader

PAYLOADS = {
    "empty": b"",
    "7999": bytes(7_999),
    "8000": b"x" * 8_000,
    "all bytes": bytes(range(256)),
    "1 MiB": random.Random(0).randbytes(1024 * 1024),
}


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_any_payload(backend: ChannelsBackend, channel: str, payload: str) -> None:
    """Any bytes up to the limit arrive unchanged."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(PAYLOADS[payload], [channel])
        assert await reader.next() == Event(channel, PAYLOADS[payload])


NAMES = ["n" * 1_000, "NUL\0inside", "ünïcode 🐘", 'quote"; DROP TABLE x; --', "", "a.b:c*", "\ud800"]


async def test_any_name(backend: ChannelsBackend) -> None:
    """Names are byte-exact, of any length, and never parsed."""
    names = [*NAMES, "n" * 999 + "m", "room", "ROOM", "x" * 63 + "1", "x" * 63 + "2"]
    async with Reader(backend) as reader:
        await backend.subscribe(names)
        for name in names:
            await backend.publish(name_of := name.encode("utf-8", "replace"), [name])
            assert await reader.next() == Event(name, name_of)


async def test_too_large(make_backend: MakeBackend, channel: str) -> None:
    """One byte more than the limit is refused before any I/O, and the next publish works."""
    backend = await make_backend(max_payload=10_000)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with pytest.raises(MessageTooLarge):
            await backend.publish(bytes(10_001), [channel])
        await backend.publish(bytes(10_000), [channel])
        assert (await reader.next()).data == bytes(10_000)


async def test_a_batch_keeps_its_order(make_backend: MakeBackend, channel: str) -> None:
    """Events of a batch arrive in order per channel, at another process too, large ones in between."""
    sender, receiver = await make_backend(), await make_backend()
    names = [f"{channel}-{number}" for number in range(5)]
    batch = [
        Publication(b"%d" % number + bytes(20_000 * (number % 50 == 0)), (names[number % 5], names[0]))
        for number in range(1_000)
    ]
    async with Reader(receiver) as reader:
        await receiver.subscribe(names)
        assert await sender.publish_batch(batch) == [None] * 1_000
        events = await reader.take(1_800)
    for name in names:
        assert [event.data for event in events if event.channel == name] == [
            each.data for each in batch if name in each.channels
        ]


async def test_equal_events_all_arrive(backend: ChannelsBackend, channel: str) -> None:
    """The server's folding of equal notifications is kept from us."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish_batch([Publication(b"same", (channel,))] * 100)
        assert await reader.take(100) == [Event(channel, b"same")] * 100


async def test_unsubscribed_channels_are_silent(backend: ChannelsBackend, channel: str) -> None:
    """Nothing of a channel arrives after leaving it; others go on, and joining again works."""
    names = [f"{channel}-{number}" for number in range(200)]  # more than there are buckets
    async with Reader(backend) as reader:
        await backend.subscribe(names)
        await backend.unsubscribe([*names[1:], "never subscribed"])
        await backend.unsubscribe(names[1:2])
        for name in (*reversed(names),):
            await backend.publish(b"", [name])
        assert (await reader.next()).channel == names[0]
        await backend.subscribe(names[5:6])
        await backend.subscribe(names[5:6])
        await backend.publish(b"again", names[5:6])
        assert (await reader.next()).data == b"again"


async def test_use_before_start_and_after_stop(make_backend: MakeBackend, channel: str) -> None:
    """Before the start and after the stop every call says so; start, stop, start works."""
    backend = await make_backend()
    for _ in range(2):
        await backend.on_shutdown()
        with pytest.raises(NotStarted):
            await backend.publish(b"", [channel])
    await backend.on_startup()
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(b"back", [channel])
        assert (await reader.next()).data == b"back"


async def test_what_is_no_event_is_counted(
    make_backend: MakeBackend, postgres_broker: Broker, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's notification on our names is skipped and counted, and said once."""
    backend = await make_backend(prefix="foreign")
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with psycopg.connect(postgres_broker.url, autocommit=True) as connection:
            for bucket in range(64):
                connection.execute("SELECT pg_notify(%s, %s)", [f"foreign_{bucket:02x}", "none of ours"])
        await backend.publish(b"ours", [channel])
        assert (await reader.next()).data == b"ours"
    assert backend.skipped == 1
    await backend.on_shutdown()
    assert backend.skipped == 1
    assert [record.levelname for record in caplog.records if "no event of ours" in record.message] == ["WARNING"]


async def test_the_queue_of_notifications_can_be_watched(
    make_backend: MakeBackend, postgres_broker: Broker, channel: str
) -> None:
    """A listener that sits in a transaction makes the queue grow, and the backend can tell."""
    backend = await make_backend()
    before = await backend.get_queue_usage()
    with psycopg.connect(postgres_broker.url) as listener:
        listener.execute("LISTEN nothing_in_particular")
        listener.commit()
        listener.execute("SELECT 1")
        for _ in range(5):
            await backend.publish(os.urandom(1024 * 1024), [channel])
        assert before < await backend.get_queue_usage() < 1


async def test_a_writer_that_is_let_in_no_more_is_away(
    make_backend: MakeBackend, postgres_broker: Broker, driver: str, channel: str
) -> None:
    """When nobody is let in any more who was before, a publish may be tried again, and works when they are."""
    role = f"tenant_{driver}"
    with psycopg.connect(postgres_broker.url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            backend = await make_backend(postgres_broker.url.replace("postgres@", f"{role}@"))
            await backend.publish(b"", [channel])
            admin.execute(f"ALTER ROLE {role} NOLOGIN".encode())
            end_connections(admin, role)
            for _ in range(4):  # also when all of the pool's connections have been tried
                with pytest.raises(BackendConnectionError):
                    await backend.publish(b"", [channel])
            admin.execute(f"ALTER ROLE {role} LOGIN".encode())
            await backend.publish(b"", [channel])
            await backend.on_shutdown()
        finally:
            end_connections(admin, role)
            admin.execute(f"DROP ROLE {role}".encode())


def end_connections(admin: psycopg.Connection, role: str) -> None:
    """End the connections of a role."""
    admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [role])


async def test_a_lost_listener_raises(backend: ChannelsBackend, postgres_broker: Broker, channel: str) -> None:
    """Terminating the listening connection ends the iterator with an error, after what had arrived."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(b"before", [channel])
        assert (await reader.next()).data == b"before"
        await asyncio.to_thread(postgres_broker.admin.cut)
        with pytest.raises(BackendConnectionError):
            await reader.lost()
        with pytest.raises(BackendConnectionError):
            await backend.subscribe([f"{channel}-{number}" for number in range(100)])
        with pytest.raises(BackendConnectionError):  # also where no other notification channel is needed
            await backend.subscribe([channel])


async def test_a_lost_writer_is_replaced(backend: ChannelsBackend, postgres_broker: Broker, channel: str) -> None:
    """Terminating the publishing connection fails at most one call and never reaches the receiver."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(b"1", [channel])
        cut_statement(postgres_broker, "pg_notify")
        for _ in range(3):
            try:
                await backend.publish(b"2", [channel])
                break
            except BackendConnectionError:
                continue
        assert [event.data for event in await reader.take(2)] == [b"1", b"2"]


def cut_statement(broker: Broker, words: str) -> None:
    """End the connections whose last statement has these words."""
    with psycopg.connect(broker.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE query LIKE %s AND pid <> pg_backend_pid()",
            [f"%{words}%"],
        )


async def test_cancelled_calls_leave_nothing_behind(
    backend: ChannelsBackend, postgres_broker: Broker, channel: str
) -> None:
    """However a publish is cancelled, the next answers are the right ones and connections do not pile up."""
    rng = random.Random(1)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        for _ in range(100):
            task = asyncio.create_task(backend.publish(b"maybe", [channel]))
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await backend.publish(b"sure", [channel])
        sure = 0
        while sure < 100:
            sure += (await reader.next()).data == b"sure"
    assert len(await asyncio.to_thread(postgres_broker.admin.connections)) < 150


async def test_concurrent_publishes_share_few_connections(
    backend: ChannelsBackend, postgres_broker: Broker, channel: str
) -> None:
    """1,000 publishes at once all succeed, over at most three connections."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await asyncio.gather(*(backend.publish(b"%d" % number, [channel]) for number in range(1_000)))
        events = await reader.take(1_000)
    assert sorted(int(event.data) for event in events) == list(range(1_000))
    assert len(await asyncio.to_thread(postgres_broker.admin.connections)) <= 4


async def test_shutdown_ends_calls_in_flight(backend: ChannelsBackend, channel: str) -> None:
    """Stopping makes calls in flight, and those that wait for a connection, end with an error."""
    calls = [asyncio.create_task(backend.publish(os.urandom(500_000), [channel])) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        await backend.on_shutdown()
        results = await asyncio.gather(*calls, return_exceptions=True)
    failed = [result for result in results if result is not None]  # one or the other may have been accepted
    assert failed
    assert all(isinstance(result, BackendConnectionError) for result in failed), failed


async def test_refusals_say_what_to_do(
    make_backend: MakeBackend, postgres_url: str, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """No database, no right to log in: refused. No server: away."""
    with pytest.raises(BackendError, match="create the database"):
        await make_backend(postgres_url.rpartition("/")[0] + "/nowhere")
    with pytest.raises(BackendError, match="user and password"):
        await make_backend(postgres_url.replace("postgres@", "nobody_here@"))
    with pytest.raises(BackendConnectionError):
        await make_backend(f"postgresql://postgres@127.0.0.1:{unused_tcp_port_factory()}/postgres")


async def test_two_databases_are_noticed(make_backend: MakeBackend, postgres_url: str) -> None:
    """A listening connection that hears nothing fails the start, in words."""
    with pytest.raises(BackendError, match="transaction pooler"):
        await make_backend(listen_dsn=postgres_url.rpartition("/")[0] + "/template1")


async def test_driver_parameters_pass_through(make_backend: MakeBackend, postgres_broker: Broker, channel: str) -> None:
    """What the driver understands reaches it."""
    backend = await make_backend(application_name="shown_here")
    await backend.publish(b"", [channel])
    with psycopg.connect(postgres_broker.url) as connection:
        rows = connection.execute("SELECT FROM pg_stat_activity WHERE application_name = 'shown_here'").fetchall()
    assert len(rows) == 2
