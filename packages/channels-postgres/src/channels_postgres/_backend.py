"""The two backends but for their driver."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Self

import msgspec

from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError, InvalidURL, MessageTooLarge, NotStarted
from channels_core.urls import parse_options, without_options
from channels_postgres._driver import Driver
from channels_postgres._log import LogSession
from channels_postgres._notify import NotifySession
from channels_postgres._options import Options
from channels_postgres._session import Session

__all__ = ("PostgresChannelsBackend",)


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
        self._proved = False

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
        await session.publish((Publication(data, tuple(channels), key),))

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        """Publish all of the batch in one transaction: all are accepted, or all refused for the same reason."""
        session = self._started()
        try:
            await session.publish(batch)
        except BackendError as exc:
            return [exc] * len(batch)
        return [None] * len(batch)

    async def publish_probe(self, channel: str, data: bytes) -> None:
        await self._started().publish_probe(channel, data)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await self._started().get_history(channel, limit, after)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        return await self._started().get_tops(channels)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._options.max_payload:
            raise MessageTooLarge(
                f"event of {len(data)} bytes, at most {self._options.max_payload} are taken; raise max_payload"
            )

    def _started(self) -> Session:
        if self._session is None:
            raise NotStarted("the PostgreSQL backend is not started; call on_startup first")
        return self._session
