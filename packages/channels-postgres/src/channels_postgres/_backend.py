"""The two backends but for their driver."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Self

import msgspec

from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    HistoryNotSupported,
    InvalidURL,
    MessageTooLarge,
    NotStarted,
)
from channels_core.urls import parse_options, without_options
from channels_postgres import _statements as sql
from channels_postgres._driver import Argument, Driver
from channels_postgres._envelope import Packer, name_bytes
from channels_postgres._log import LogSession
from channels_postgres._notify import NotifySession, bucket_names, pack
from channels_postgres._options import Options
from channels_postgres._schema import in_schema
from channels_postgres._session import NOTIFY, Session
from channels_postgres._transactions import fetch_value_in

__all__ = ("PostgresChannelsBackend",)

MAX_NAME_BYTES: Final = 2_000
"""Bytes of a channel's name with history: an entry of an index takes a third of a page at the most."""


class PostgresChannelsBackend(ChannelsBackend):
    """Talks to PostgreSQL 14 or newer; see `AsyncPgChannelsBackend` and `PsycoPgChannelsBackend`."""

    scheme: ClassVar[str]
    driver_parameters: ClassVar[tuple[str, ...]]

    def __init__(self, driver: Driver, options: Options) -> None:
        self.keeps_history = options.keeps_history
        self.max_payload = options.max_payload
        self._driver = driver
        self._options = options
        self._session: Session | None = None
        self._packer = Packer()
        self._proved = False
        self._skipped = 0

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Build from ``postgresql://user@host/database?history=100&max_age=3600``.

        Raises:
            InvalidURL: An unknown parameter (the message lists the valid ones), or a value that cannot be read.
        """
        try:
            options = parse_options(url, Options, driver=cls.driver_parameters)
        except msgspec.ValidationError as exc:  # what the options say of their combination
            raise InvalidURL(str(exc)) from exc
        _scheme, colon, rest = without_options(url, Options).partition(":")
        return cls._from_options(f"postgresql{colon}{rest}", options)

    @classmethod
    @abstractmethod
    def _from_options(cls, dsn: str, options: Options) -> Self: ...

    async def on_startup(self) -> None:
        if self._session is not None:
            return
        kind = LogSession if self.keeps_history else NotifySession
        session: Session = kind(self._driver, self._options)
        try:
            await session.open()
        except BackendError as exc:
            if self._proved:  # it worked before, so it may work again: let the plugin go on trying
                raise BackendConnectionError(str(exc)) from exc
            raise
        self._session = session
        self._proved = True

    async def on_shutdown(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._skipped += session.assembler.damaged
            await session.close()

    def stream_events(self) -> AsyncIterator[Event]:
        return self._started().stream()

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self._started().subscribe(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await self._started().unsubscribe(channels)

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        session = self._started()
        self._check_size(data)
        if (refused := self._refusal(publication := Publication(data, tuple(channels), key))) is not None:
            raise refused
        await session.publish((publication,))

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        """Publish in one transaction whatever is not refused beforehand: all of it is accepted, or all refused."""
        session = self._started()
        outcomes = self._judge(batch)
        if any(outcomes):
            accepted = [each for each, refused in zip(batch, outcomes, strict=True) if refused is None]
        else:
            accepted = list(batch)
        try:
            await session.publish(accepted)
        except BackendError as exc:
            return [refused or exc for refused in outcomes]
        return outcomes

    async def publish_in(self, connection: Any, data: bytes, channels: Sequence[str]) -> None:
        """Publish one event as part of the caller's transaction: it appears if and only if that commits.

        Needs no start. There is no retry and no position: the order is decided by the commit.

        Args:
            connection: Of asyncpg (a pool's, too), psycopg's ``AsyncConnection``, or SQLAlchemy's ``AsyncSession`` or
                ``AsyncConnection`` on one of these drivers. Without a transaction the event is published at once.
            data: The payload.
            channels: One or more names.

        Raises:
            MessageTooLarge: More bytes than `max_payload`.
            BackendError: A name is too long.
            ImproperlyConfigured: The connection is of another kind.
        """
        self._check_size(data)
        if (refused := self._refusal(publication := Publication(data, tuple(channels)))) is not None:
            raise refused
        for statement, *arguments in self._statements_for(publication):
            await fetch_value_in(connection, statement, *arguments)

    async def top_in(self, connection: Any, channel: str) -> Position:
        """Return the position of the newest event that the caller's snapshot sees, to be followed from.

        Under REPEATABLE READ it belongs to exactly the state that the other queries of the transaction read. Under
        READ COMMITTED ask before the state is read: an event may then be in both, and none in neither.

        Raises:
            HistoryNotSupported: The backend keeps no history.
            ImproperlyConfigured: The connection is of a kind that `publish_in` does not know either.
        """
        if not self.keeps_history:
            raise HistoryNotSupported("without history there are no positions; add ?history=N or ?max_age=SECONDS")
        statement = in_schema(sql.TOP, self._options.prefix)
        top = await fetch_value_in(connection, statement, name_bytes(channel))
        if top is None:
            return ORIGIN
        return Position.parse(top.decode() if isinstance(top, bytes) else top)  # psycopg, in a database of SQL_ASCII

    def _statements_for(self, publication: Publication) -> Iterator[tuple[str, *tuple[Argument, ...]]]:
        if self.keeps_history:
            for channel in dict.fromkeys(publication.channels):
                yield in_schema(sql.PUBLISH_IN, self._options.prefix), name_bytes(channel), publication.data
        else:
            yield NOTIFY, *pack((publication,), self._packer, bucket_names(self._options.prefix))

    @property
    def skipped(self) -> int:
        """How many notifications were no events of ours, damaged or from somebody else; they are left out."""
        return self._skipped + (self._session.assembler.damaged if self._session is not None else 0)

    async def get_queue_usage(self) -> float:
        """Return the share of the server's notification queue that is in use, from 0 to 1, as a metric to watch.

        At 1 no transaction that notifies can commit any more. A session that has executed LISTEN and sits in a
        transaction makes it grow. Source: PostgreSQL 18 manual, ``pg_notification_queue_usage``.

        Raises:
            BackendConnectionError: The server is away.
        """
        return await self._started().get_queue_usage()

    async def publish_probe(self, channel: str, data: bytes) -> None:
        await self._started().publish_probe(channel, data)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await self._started().get_history(channel, limit, after)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        return await self._started().get_tops(channels)

    def _judge(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        """Return who is refused beforehand; the names are looked at once, and not for each event."""
        limit = self._options.max_payload
        suspects: set[tuple[str, ...]] = set()
        if self.keeps_history:
            suspects = {channels for channels in {each.channels for each in batch} if _has_long_name(channels)}
        return [self._refusal(each) if len(each.data) > limit or each.channels in suspects else None for each in batch]

    def _refusal(self, publication: Publication) -> BackendError | None:
        if len(publication.data) > self._options.max_payload:
            return BackendError(f"event of {len(publication.data)} bytes, {self._options.max_payload} are taken")
        if self.keeps_history and _has_long_name(publication.channels):
            return BackendError(f"a channel's name has more than {MAX_NAME_BYTES} bytes, more than an index takes")
        return None

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._options.max_payload:
            raise MessageTooLarge(
                f"event of {len(data)} bytes, at most {self._options.max_payload} are taken; raise max_payload"
            )

    def _started(self) -> Session:
        if self._session is None:
            raise NotStarted("the PostgreSQL backend is not started; call on_startup first")
        return self._session


def _has_long_name(channels: Iterable[str]) -> bool:
    return any(map(_is_too_long, channels))


def _is_too_long(name: str) -> bool:
    # No character has more than four bytes: most names need no encoding to be judged.
    return len(name) * 4 > MAX_NAME_BYTES and len(name_bytes(name)) > MAX_NAME_BYTES
