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

SESSION: Final = "SET jit = off; SET enable_seqscan = off; SET max_parallel_workers_per_gather = 0"
"""For the reading connection, whose one statement finds few rows by an index, whatever the statistics say."""

SNAPSHOT: Final = "SELECT pg_current_snapshot()::text"

PUBLISH: Final = "SELECT channels.publish_batch($1::text, $2::bytea[], $3::bigint[], $4::bytea[])"

PUBLISH_IN: Final = "SELECT channels.publish_bytes($1::bytea, $2::bytea)"

TOP: Final = "SELECT r.epoch || ':' || r.top FROM channels.records AS r WHERE r.channel = $1::bytea"

TOPS: Final = "SELECT r.channel, r.epoch, r.top FROM channels.records AS r WHERE r.channel = ANY ($1::bytea[])"

TRIM: Final = "SELECT channels.trim($1::bigint, $2::float8, $3::float8, $4::bigint)"

CHANGES: Final = """
WITH pass AS MATERIALIZED (
    SELECT coalesce(nullif($2::text, '')::pg_snapshot, pg_current_snapshot()) AS upto
)
SELECT upto::text, 0::bigint, NULL::bytea, NULL::text, NULL::bigint, NULL::bytea, NULL::bigint FROM pass
UNION ALL
SELECT NULL, p.seq, p.channel, p.epoch, p."offset", p.payload, p.xid::text::bigint
FROM (
    SELECT n.*, sum(octet_length(n.payload)) OVER (ORDER BY n.seq) - octet_length(n.payload) AS bytes_before
    FROM (
        SELECT e.seq, e.channel, e.epoch, e."offset", e.payload, e.xid
        FROM channels.events AS e
        WHERE (
                e.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                OR e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
            )
            AND pg_visible_in_snapshot(e.xid, (SELECT upto FROM pass))
            AND e.seq > $3::bigint
            AND get_bit($4::bytea, e.hash & $5::bigint) = 1
            AND ($6::float8 <= 0 OR e.stored_at > now() - make_interval(secs => $6::float8))
        ORDER BY e.seq
        LIMIT $7::bigint
    ) AS n
) AS p
WHERE p.bytes_before < $8::bigint
ORDER BY 2
"""
"""What became visible between two snapshots, and the second of them in the first row.

Arguments: the first snapshot; the second, '' for now; the last ``seq`` read under the same two; bitmap and mask of
the subscribed channels; the age limit; rows and bytes of a page.
Source: the batch query of PgQ (functions/pgq.batch_event_sql.sql).
"""

_HISTORY: Final = """
SELECT r.epoch, r.top, e.epoch, e."offset", e.payload
FROM channels.records AS r
LEFT JOIN LATERAL (
    SELECT x.epoch, x."offset", x.payload
    FROM channels.events AS x
    WHERE x.channel = r.channel
        AND x."offset" > r.top - $3::bigint
        AND ($4::float8 <= 0 OR x.stored_at > now() - make_interval(secs => $4::float8))
        {}
    LIMIT $2::bigint
) AS e ON true
WHERE r.channel = $1::bytea
ORDER BY e."offset"
"""
"""The record of a channel, beside each of its events, or alone. Arguments: name, limit, history, age limit."""

NEWEST: Final = _HISTORY.format('ORDER BY x."offset" DESC')

FOLLOWING: Final = _HISTORY.format(
    """
        AND x."offset" > CASE
            WHEN $5::text = r.epoch THEN greatest($6::bigint, r.first_offset - 1)
            ELSE coalesce((
                SELECT greatest(least($6::bigint, max(y."offset")), min(y."offset") - 1)
                FROM channels.events AS y WHERE y.channel = r.channel AND y.epoch = $5::text
                HAVING count(*) > 0
            ), 0)
        END
        ORDER BY x."offset"
"""
)
"""Offsets go on over the border of an epoch, so each epoch is a range of them. Arguments 5 and 6: epoch and offset."""

ALL: Final = (CHANGES, FOLLOWING, NEWEST, PUBLISH, PUBLISH_IN, TOP, TOPS, TRIM)
