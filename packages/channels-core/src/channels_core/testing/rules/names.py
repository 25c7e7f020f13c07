"""Channel names are compared byte for byte."""

from __future__ import annotations

from typing import Final

from channels_core.backend import Publication
from channels_core.testing.registry import check, rule
from channels_core.testing.stage import Stage

AWKWARD: Final = (
    ".dots.and..more",
    ":colons::",
    "'single' \"double\" `back`",
    "  spaces  ",
    "{braces}{}{",
    "*?[a-z]^",
    "%s%%$1\\n\\",
    "/slash//#fragment?query=1&b",
    "ünïcödé 日本 🦑",
    "é",
    "e\u0301",
    "İıſß",
    "-- ; DROP",
)
"""Suffixes of names; those with a combining accent and without it look alike."""

LONG_BYTES: Final = 1000

TWINS: Final = (
    *(":x", "_x", "-x", "/x", " x", "x", "%2Ex", "\\.x"),
    *("..x", ".x.", ".x ", " .x", ".X", ".x/", ".x.y", ".", ""),
)
"""Suffixes that a key made of a name often takes for ``.x``."""

PATTERNS: Final = (".*", ".**", ".#", ".>", ".+", ".?", ".%", "._", ".[x]", ".{x}", "*", "#", "%")
"""Suffixes that match ``.x`` where a name is taken for a pattern."""

ALL: Final = ("*", "#", ">", "%", "?*", ".*")
"""Names that would match every other one."""


@rule()
async def awkward_names_arrive_unchanged(stage: Stage) -> None:
    """Dots, colons, quotes, spaces, braces, wildcards, non-ASCII and 1,000 bytes are all good in a name.

    Troubleshooting: quote names for the broker, or send them inside the message and subscribe to a hash.
    """
    publishing, receiving = await stage.pair()
    names = [stage.channel(suffix) for suffix in AWKWARD]
    names.append(stage.channel("-").ljust(LONG_BYTES, "n"))
    await receiving.subscribe(*names)
    for name in names:
        await publishing.publish(name.encode(), name)
        (event,) = await receiving.take(1)
        check(event.channel == name, f"an event of {name!r} arrived as one of {event.channel!r}")
        check(event.data == name.encode(), f"{name!r} received {event.data!r}")


@rule()
async def names_that_differ_by_case_are_two_channels(stage: Stage) -> None:
    """Who subscribed to `room` receives nothing of `ROOM`.

    Troubleshooting: do not fold, normalise or trim names; mind the collation of a database column.
    """
    name = stage.channel("-room")
    await _stay_apart(stage, [name], [name.upper()])


@rule()
async def names_that_differ_by_a_space_or_an_accent_are_two_channels(stage: Stage) -> None:
    """Leading and trailing spaces count, and so does the way an accent is written.

    Troubleshooting: compare names as bytes.
    """
    name = stage.channel("-é")
    twins = [name + " ", " " + name, name.replace("é", "e\u0301"), name.replace("é", "e")]
    await _stay_apart(stage, [name], twins)


@rule()
async def names_that_differ_by_punctuation_are_two_channels(stage: Stage) -> None:
    """Who subscribed to `room.x` receives nothing of `room:x`, `room_x`, `room..x`, `room` or `room.x.y`.

    Troubleshooting: a name that the broker cannot take is escaped or hashed; replacing characters makes names collide.
    """
    base = stage.channel()
    twins = [base + suffix for suffix in (*TWINS, *PATTERNS)]
    await _stay_apart(stage, [base + ".x"], [*twins, base.replace("-", "_") + ".x"])


@rule()
async def a_subscription_is_not_a_pattern(stage: Stage) -> None:
    """Who subscribed to `room.*`, `room.#`, `room.%` or `*` receives nothing of `room.x`: every name stands for itself.

    Troubleshooting: subscribe without patterns (`SUBSCRIBE`, `=`), or escape what the broker takes for one.
    """
    base = stage.channel()
    await _stay_apart(stage, [*ALL, *(base + suffix for suffix in PATTERNS)], [base + ".x"])


@rule()
async def long_names_that_begin_alike_are_two_channels(stage: Stage) -> None:
    """Names that are equal in their first 63, 200 or 255 characters are different channels.

    Troubleshooting: the broker cuts identifiers off (PostgreSQL: 63 bytes); use a hash of the whole name.
    """
    for length in (63, 200, 255):
        start = stage.channel("-").ljust(length, "n")
        await _stay_apart(stage, [start + "a"], [start + "b"])


@rule(history=True)
async def histories_of_similar_names_stay_apart(stage: Stage) -> None:
    """Each name has a history and a top of its own, however similar another one is, or whatever it would match.

    Troubleshooting: derive keys and rows from the exact name, the same way for publishing and reading.
    """
    publishing, receiving = await stage.pair()
    name, base = stage.channel("-Name"), stage.channel()
    twins = [name, name.upper(), name.lower(), name + " ", name.ljust(200, "n") + "a", name.ljust(200, "n") + "b"]
    twins += [base + suffix for suffix in (".x", *TWINS, *PATTERNS)]
    for twin in twins:
        await publishing.publish(twin.encode(), twin)
    shared = {twin: top for twin, top in (await receiving.tops(*twins)).items() if top.offset != 1}
    check(not shared, f"one event in each channel, and tops are {shared}")
    for twin in twins:
        stored = [event.data for event in (await receiving.history(twin)).events]
        check(stored == [twin.encode()], f"history of {twin!r} holds {stored}")


async def _stay_apart(stage: Stage, names: list[str], twins: list[str]) -> None:
    """Publish to channels that are not subscribed, then a sentinel: it must come first."""
    publishing, receiving = await stage.pair()
    await receiving.subscribe(*names)
    await publishing.publish(b"not for us", *twins)
    await publishing.publish_batch([Publication(f"not for us: {twin}".encode(), (twin,)) for twin in twins])
    await publishing.publish(b"sentinel", names[-1])
    # A name such as "*" may belong to somebody else's application.
    before = [event for event in await receiving.take_until(b"sentinel") if event.data.startswith(b"not for us")]
    check(not before, f"who subscribed to {names} received {before}")
