"""The core plugin as a Litestar plugin: dependency, lifespan and ready-made handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Unpack

import msgspec
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.plugins import InitPlugin
from litestar.serialization import default_serializer
from litestar.types import Guard, TypeEncodersMap

from channels_core.backend import ChannelsBackend
from channels_core.plugin import ChannelsPlugin as CorePlugin
from channels_litestar._access import Authorize
from channels_litestar._core_options import CoreOptions
from channels_litestar._drain import call_on_stop_signal
from channels_litestar._frames import OnGap, SendMode
from channels_litestar._handlers import make_handlers
from channels_litestar._options import HandlerOptions

__all__ = ("ChannelsPlugin",)


class ChannelsPlugin(CorePlugin, InitPlugin):
    """`channels_core.ChannelsPlugin` for a Litestar application.

    Handlers get it as the dependency ``channels``. It starts and stops with the application.

    Args:
        backend: An instance or a URL.
        create_ws_route_handlers: Make WebSocket handlers: one per declared channel, at base path plus name, or one
            with the name in the path when ``arbitrary_channels_allowed``.
        ws_handler_base_path: Where they are.
        ws_handler_send_history: Events of the past that a client gets when it connects.
        ws_send_mode: Kind of message that carries an event; in text mode data that is not UTF-8 still comes as a
            binary message. Clients that offer the subprotocol ``channels.v1`` get JSON envelopes instead.
        ws_on_gap: What a raw connection does where events may be missing: ``"close"`` with code 1012, so that the
            client connects again and refetches, or ``"ignore"``.
        ws_handler_publish: Publish what clients send to the channel; otherwise it is discarded.
        ws_allowed_origins: Origins (``"https://example.org"``) from which browser pages may connect;
            ``"same-origin"`` stands for the host asked. ``None`` admits every page: set it where cookies
            authenticate.
        create_sse_route_handlers: Make handlers for server-sent events, in the same way.
        sse_handler_base_path: Where they are.
        sse_keep_alive: Seconds between comments that keep a connection alive.
        handler_max_history: The most events that clients of any handler may ask for with ``?history=N``.
        authorize: Asked with connection, channel and ``"subscribe"`` or ``"publish"`` before a connection is
            accepted (before its first message, for ``"publish"``), and again every ``authorize_interval``. May be a
            coroutine function; a plain function runs in the event loop and must not block.
        authorize_interval: Seconds that an answer holds; ``None`` for as long as the connection is open.
        guards: Litestar guards of the generated handlers.
        send_timeout: Seconds after which a client that does not read is given up; ``None`` for never.
        type_encoders: How to encode types that msgspec does not know, in addition to the application's own.
        **options: The options of `channels_core.ChannelsPlugin`.

    Raises:
        ImproperlyConfigured: Options contradict each other, or the backend cannot do what they ask.
    """

    def __init__(
        self,
        backend: ChannelsBackend | str,
        *,
        channels: Iterable[str] | None = None,
        arbitrary_channels_allowed: bool = False,
        create_ws_route_handlers: bool = False,
        ws_handler_base_path: str = "/",
        ws_handler_send_history: int = 0,
        ws_send_mode: SendMode = "text",
        ws_on_gap: OnGap = "close",
        ws_handler_publish: bool = False,
        ws_allowed_origins: Sequence[str] | None = None,
        create_sse_route_handlers: bool = False,
        sse_handler_base_path: str = "/",
        sse_keep_alive: float = 15.0,
        handler_max_history: int = 0,
        authorize: Authorize | None = None,
        authorize_interval: float | None = 60.0,
        guards: Sequence[Guard] = (),
        send_timeout: float | None = 30.0,
        type_encoders: TypeEncodersMap | None = None,
        **options: Unpack[CoreOptions],
    ) -> None:
        names = (channels,) if isinstance(channels, str) else tuple(channels or ())
        self._type_encoders: Final[dict[Any, Any]] = {**(type_encoders or {})}
        options.setdefault("encoder", self._write_json)
        super().__init__(backend, channels=names, arbitrary_channels_allowed=arbitrary_channels_allowed, **options)
        handler_options = HandlerOptions(
            create_ws_route_handlers=create_ws_route_handlers,
            ws_handler_base_path=ws_handler_base_path,
            ws_handler_send_history=ws_handler_send_history,
            ws_send_mode=ws_send_mode,
            ws_on_gap=ws_on_gap,
            ws_handler_publish=ws_handler_publish,
            ws_allowed_origins=ws_allowed_origins,
            create_sse_route_handlers=create_sse_route_handlers,
            sse_handler_base_path=sse_handler_base_path,
            sse_keep_alive=sse_keep_alive,
            handler_max_history=handler_max_history,
            authorize=authorize,
            authorize_interval=authorize_interval,
            guards=guards,
            send_timeout=send_timeout,
        )
        handler_options.check(keeps_history=self.backend.keeps_history)
        self._handlers: Final = make_handlers(self, None if arbitrary_channels_allowed else names, handler_options)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the dependency, the lifespan and the handlers to an application; called by Litestar."""
        app_config.dependencies["channels"] = Provide(lambda: self, use_cache=True, sync_to_thread=False)
        app_config.signature_namespace["ChannelsPlugin"] = ChannelsPlugin
        app_config.lifespan.append(self.lifespan)
        app_config.route_handlers.extend(self._handlers)
        for encoded_type, encode in (app_config.type_encoders or {}).items():
            self._type_encoders.setdefault(encoded_type, encode)
        return app_config

    @asynccontextmanager
    async def lifespan(self, app: Litestar) -> AsyncIterator[None]:
        """Run with the application: start, stop, and drain when the process is asked to stop.

        WebSocket clients are closed with 1012, event streams end. Servers wait for open connections before they send
        the lifespan's shutdown, so draining comes first: by itself when the process gets SIGINT or SIGTERM in its
        main thread, else from your own code.
        """
        async with self:
            with call_on_stop_signal(self.drain):
                yield

    def _write_json(self, data: Any) -> bytes:
        return msgspec.json.encode(data, enc_hook=self._to_encodable)

    def _to_encodable(self, value: Any) -> Any:
        return default_serializer(value, self._type_encoders)
