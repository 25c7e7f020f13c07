"""Payloads are bytes, any bytes, up to the declared size."""

from __future__ import annotations

from typing import Final

from channels_core.backend import Publication
from channels_core.exceptions import BackendError, MessageTooLarge
from channels_core.testing.registry import NotApplicable, NotProved, RuleBroken, check, rule
from channels_core.testing.stage import Stage

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
    for data in SAMPLES.values():
        await publishing.publish(data, channel)
    stored = [event.data for event in (await receiving.history(channel)).events]
    check(stored == list(SAMPLES.values()), f"history holds {[data[:20] for data in stored]}")


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


def _sendable(size: int) -> int:
    if size >= LARGEST:
        raise NotProved(f"the declared limit is {size} bytes, and the kit sends less than {LARGEST}")
    return size


def _pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]
