"""Payloads are bytes, any bytes, up to the declared size."""

from __future__ import annotations

from itertools import chain
from typing import Final

from channels_core.backend import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Publication
from channels_core.exceptions import BackendError, MessageTooLarge
from channels_core.testing.registry import NotApplicable, NotProved, RuleBroken, check, rule
from channels_core.testing.stage import Instance, Stage

SAMPLES: Final = {
    "empty": b"",
    "NUL": b"\x00",
    "NUL inside": b"a\x00b",
    "invalid UTF-8": b"\xff\xfe\x80",
    "a lone surrogate": b"\xed\xa0\x80",
    "line ends": b"\r\n\r\n\n",
    "quotes and backslashes": rb"""'"`\x00\\$1%s""",
    "text": "größer 日本 🦑".encode(),
    "every byte": bytes(range(256)),
    "10,000 bytes": bytes(range(250)) * 40,
}

LARGE: Final = 1024 * 1024
"""Sent where no limit is declared."""

LARGEST: Final = 64 * 1024 * 1024
"""More than that is not sent: it would prove the machine's memory."""


@rule()
async def any_bytes_arrive_unchanged(stage: Stage) -> None:
    """Every payload arrives byte for byte: empty, NUL, invalid UTF-8, line ends, every byte value.

    Troubleshooting: do not decode payloads; where the broker takes text only, encode them (base64, hex).
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    fitting = {name: data for name, data in SAMPLES.items() if len(data) <= (stage.subject.max_payload or LARGE)}
    for name, data in fitting.items():
        await publishing.publish(data, channel)
        (event,) = await receiving.take(1)
        check(event.data == data, f"{name}: {data[:40]!r} arrived as {event.data[:40]!r}")


@rule()
async def any_bytes_survive_a_batch(stage: Stage) -> None:
    """Payloads of one batch arrive byte for byte too, equal ones once per publication.

    Troubleshooting: encode in one place for `publish` and `publish_batch`; look for a broker that folds equal messages.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    limit = stage.subject.max_payload or LARGE
    payloads = [data for data in (*SAMPLES.values(), b"twin", b"twin", b"twin") if len(data) <= limit]
    await publishing.publish_batch([Publication(data, (channel,)) for data in payloads])
    seen = [event.data for event in await receiving.take(len(payloads))]
    check(seen == payloads, f"a batch arrived as {[data[:20] for data in seen]}")


@rule(history=True)
async def any_bytes_are_kept_in_history(stage: Stage) -> None:
    """History gives every payload byte for byte.

    Troubleshooting: history and live events must take the same way through encoding and decoding.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    payloads = [data for data in SAMPLES.values() if len(data) <= (stage.subject.max_payload or LARGE)]
    for data in payloads:
        await publishing.publish(data, channel)
    stored = [event.data for event in (await receiving.history(channel)).events]
    check(stored == payloads, f"history holds {[data[:20] for data in stored]}")


@rule()
async def the_largest_payload_arrives(stage: Stage) -> None:
    """A payload of exactly `max_payload` bytes arrives; where there is no limit, one of 1 MiB.

    Troubleshooting: measure the limit on the final bytes, after encoding and with the envelope.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    data = _pattern(_sendable(stage.subject.max_payload) if stage.subject.max_payload else LARGE)
    await publishing.publish(data, channel)
    (event,) = await receiving.take(1)
    check(event.data == data, f"{len(data)} bytes were published, {len(event.data)} (or others) arrived")


@rule()
async def one_byte_too_many_is_refused(stage: Stage) -> None:
    """A payload of `max_payload` plus one byte is refused, nothing of it arrives, and the next publish works.

    Troubleshooting: raise `BackendError` (in a batch: return it) instead of cutting the payload off.
    """
    if stage.subject.max_payload is None:
        raise NotApplicable("no limit is declared")
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    data = _pattern(_sendable(stage.subject.max_payload) + 1)
    try:
        await publishing.publish(data, channel)
    except (BackendError, MessageTooLarge):
        pass
    else:
        raise RuleBroken(f"{len(data)} bytes were accepted, the declared limit is {stage.subject.max_payload}")
    await publishing.publish(b"next", channel)
    check(not await receiving.take_until(b"next"), "something of the refused payload arrived")


@rule()
async def a_refusal_in_a_batch_is_of_one_publication(stage: Stage) -> None:
    """`publish_batch` answers with a `BackendError` for what is too large, and publishes what is in front and behind.

    Troubleshooting: return refusals, do not raise them; take out what is refused and go on with the rest.
    """
    if stage.subject.max_payload is None:
        raise NotApplicable("no limit is declared")
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    large = _pattern(_sendable(stage.subject.max_payload) + 1)
    payloads = [b"1", large, b"2"]
    # Only a single event may make a batch larger than that.
    together = sum(map(len, payloads)) <= MAX_BATCH_BYTES
    batches = [payloads] if together else [[data] for data in payloads]
    outcomes = [await publishing.publish_batch([Publication(data, (channel,)) for data in batch]) for batch in batches]
    (first, refusal, last) = chain.from_iterable(outcomes)
    check(
        isinstance(refusal, BackendError), f"{len(large)} bytes in a batch, one too many, were answered by {refusal!r}"
    )
    check(first is None and last is None, f"what stands beside a refused publication: {first!r}, {last!r}")
    await publishing.publish(b"end", channel)
    seen = [event.data[:20] for event in await receiving.take_until(b"end")]
    check(seen == [b"1", b"2"], f"of a batch with one refused came {seen}")
    await _keeps(stage, receiving, channel, [b"1", b"2", b"end"])


@rule()
async def the_fullest_batch_arrives(stage: Stage) -> None:
    """A batch of 1,000 publications and 1 MiB, the most that the plugin hands over, arrives whole and in order.

    Troubleshooting: look for a limit on a statement, a script's arguments or a notification, and split below it.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    payloads = _fullest(stage.subject.max_payload)
    outcomes = await publishing.publish_batch([Publication(data, (channel,)) for data in payloads])
    check(outcomes == [None] * len(payloads), f"{len(payloads)} were answered by {outcomes[:3]} …")
    await publishing.publish(b"end", channel)
    seen = [event.data for event in await receiving.take_until(b"end")]
    check(seen == payloads, f"of a batch of {len(payloads)} publications {len(seen)} came, or others")
    await _keeps(stage, receiving, channel, [*payloads[-50:], b"end"], limit=51)


async def _keeps(
    stage: Stage, instance: Instance, channel: str, expected: list[bytes], *, limit: int | None = None
) -> None:
    if stage.subject.keeps_history:
        stored = [event.data for event in (await instance.history(channel, limit)).events]
        check(stored == expected, f"{len(stored)} events of history end with {[data[:20] for data in stored[-5:]]}")


def _fullest(limit: int | None) -> list[bytes]:
    """Fill a batch with a few large payloads and many small ones, each another one."""
    few = 8
    large = min(limit or LARGE, MAX_BATCH_BYTES // (2 * few))
    small = min(large, (MAX_BATCH_BYTES - few * large) // (MAX_BATCH_EVENTS - few))
    sizes = [large] * few + [small] * (MAX_BATCH_EVENTS - few)
    return [(b"%d." % number + b"x" * size)[:size] for number, size in enumerate(sizes)]


def _sendable(size: int) -> int:
    if size >= LARGEST:
        raise NotProved(f"the declared limit is {size} bytes, and the kit sends less than {LARGEST}")
    return size


def _pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]
