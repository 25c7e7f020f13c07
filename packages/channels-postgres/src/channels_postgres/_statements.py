"""The statements of the backends with history. All arguments are cast, all text is ours."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ALL", "CHANGES", "FOLLOWING", "NEWEST", "NO_COUNT", "NO_LIMIT", "PUBLISH", "PUBLISH_IN", "SESSION", "SNAPSHOT",
    "TOP", "TOPS", "TRIM",
)  # fmt: skip

NO_LIMIT: Final = 0.0
"""An age that limits nothing."""

NO_COUNT: Final = 1 << 62
"""A number of events that limits nothing."""

_HISTORY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a page of history, give or take a row: a thousand large events do not fit into one call's deadline."""

SESSION: Final = "SET jit = off; SET enable_seqscan = off; SET max_parallel_workers_per_gather = 0"
"""For the reading connection, whose one statement finds few rows by an index, whatever the statistics say."""

SNAPSHOT: Final = "SELECT pg_current_snapshot()::text"

PUBLISH: Final = "SELECT channels.publish_batch($1::text, $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[])"

PUBLISH_IN: Final = "SELECT channels.publish_bytes($1::bytea, $2::bytea)"

TOP: Final = "SELECT r.epoch || ':' || r.top FROM channels.records AS r WHERE r.channel = $1::bytea"

TOPS: Final = "SELECT r.channel, r.epoch, r.top FROM channels.records AS r WHERE r.channel = ANY ($1::bytea[])"

TRIM: Final = "SELECT channels.trim($1::bigint, $2::float8, $3::float8, $4::bigint)"

CHANGES: Final = """
WITH pass AS MATERIALIZED (
    SELECT coalesce(nullif($2::text, '')::pg_snapshot, pg_current_snapshot()) AS upto
)
SELECT upto::text, 0::bigint, NULL::bytea, NULL::text, NULL::bigint, NULL::bytea[], NULL::bigint, NULL::bigint FROM pass
UNION ALL
SELECT NULL, p.seq, p.channel, p.epoch, p.first_offset, p.payloads, p.size, p.xid::text::bigint
FROM (
    SELECT n.*, sum(n.size) OVER before AS bytes_before, sum(n.events) OVER before AS events_before
    FROM (
        SELECT e.seq, e.channel, e.epoch, e.first_offset, e.payloads, e.xid,
            e.last_offset - e.first_offset + 1 AS events,
            pg_column_size(e.payloads)::bigint AS size
        FROM channels.events AS e
        WHERE (
                e.xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND e.xid < (SELECT pg_snapshot_xmax(upto) FROM pass)
                OR e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
            )
            AND pg_visible_in_snapshot(e.xid, (SELECT upto FROM pass))
            AND e.seq > $3::bigint
            AND get_bit($4::bytea, e.hash & $5::bigint) = 1
            AND ($6::float8 <= 0 OR e.stored_at > now() - make_interval(secs => $6::float8))
        ORDER BY e.seq
        LIMIT $7::bigint
    ) AS n
    WINDOW before AS (ORDER BY n.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
) AS p
WHERE coalesce(p.events_before < $7::bigint AND p.bytes_before < $8::bigint, true)
ORDER BY 2
"""
"""What became visible between two snapshots, and the second of them in the first row.

Arguments: the first snapshot; the second, '' for now; the last ``seq`` read under the same two; bitmap and mask of
the subscribed channels; the age limit; events and bytes of a page, of which the last row may hold more.
Source: the batch query of PgQ (functions/pgq.batch_event_sql.sql).
"""

_HISTORY: Final = """
SELECT r.epoch, r.top, r.low, e.epoch, e.first_offset, e.payloads
FROM (
    SELECT c.channel, c.epoch, c.top, greatest(c.top - $3::bigint, {low}) AS low
    FROM channels.records AS c
    WHERE c.channel = $1::bytea
) AS r
LEFT JOIN LATERAL (
    SELECT x.epoch, x.first_offset, x.payloads,
        sum(x.last_offset - greatest(x.first_offset - 1, r.low)) OVER (
            ORDER BY x.last_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS events_before,
        sum(pg_column_size(x.payloads)) OVER (
            ORDER BY x.last_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS bytes_before
    FROM channels.events AS x
    WHERE x.channel = r.channel
        AND x.last_offset > r.low
        AND ($4::float8 <= 0 OR x.stored_at > now() - make_interval(secs => $4::float8))
    ORDER BY x.last_offset
    LIMIT $2::bigint
) AS e ON coalesce(e.events_before < $2::bigint{and_more}, true)
ORDER BY e.first_offset
"""
"""The record of a channel and the offset behind which history begins, beside each row that has events of it, or alone.

The first row may begin before it, and the last may hold more than the limit asks for.
Arguments: name, limit, history, age limit.
"""

NEWEST: Final = _HISTORY.format(low="c.top - $2::bigint", and_more="")

FOLLOWING: Final = _HISTORY.format(
    low="""CASE
        WHEN $5::text = c.epoch THEN greatest($6::bigint, c.first_offset - 1)
        ELSE coalesce((
            SELECT greatest(least($6::bigint, max(y.last_offset)), min(y.first_offset) - 1)
            FROM channels.events AS y WHERE y.channel = c.channel AND y.epoch = $5::text
            HAVING count(*) > 0
        ), 0)
    END""",
    and_more=f" AND (e.bytes_before < {_HISTORY_BYTES} OR $2::bigint = {NO_COUNT})",
)
"""Offsets go on over the border of an epoch, so each epoch is a range of them. Arguments 5 and 6: epoch and offset.

With a limit it may bring less, at least one event: whoever pages goes on until `top`.
"""

ALL: Final = (CHANGES, FOLLOWING, NEWEST, PUBLISH, PUBLISH_IN, TOP, TOPS, TRIM)
