"""What the generated handlers do, checked once when the plugin is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import msgspec
from litestar.types import Guard

from channels_core.exceptions import ImproperlyConfigured
from channels_litestar._access import Authorize
from channels_litestar._frames import OnGap, SendMode

__all__ = ("HandlerOptions",)


class HandlerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the generated handlers, as `ChannelsPlugin` documents them."""

    create_ws_route_handlers: bool
    ws_handler_base_path: str
    ws_handler_send_history: int
    ws_send_mode: SendMode
    ws_on_gap: OnGap
    ws_handler_publish: bool
    ws_allowed_origins: Sequence[str] | None
    create_sse_route_handlers: bool
    sse_handler_base_path: str
    sse_keep_alive: float
    handler_max_history: int
    authorize: Authorize | None
    authorize_interval: float | None
    guards: Sequence[Guard]
    send_timeout: float | None

    def check(self, *, keeps_history: bool) -> None:
        """Refuse what could only fail once a client connects.

        Raises:
            ImproperlyConfigured: A value is out of range, or the backend cannot do it.
        """
        _check_choice("ws_send_mode", self.ws_send_mode, get_args(SendMode))
        _check_choice("ws_on_gap", self.ws_on_gap, get_args(OnGap))
        for name in ("ws_handler_send_history", "handler_max_history"):
            _check_history(name, getattr(self, name), keeps_history=keeps_history)
        for name in ("sse_keep_alive", "authorize_interval", "send_timeout"):
            _check_seconds(name, getattr(self, name))
        if isinstance(self.ws_allowed_origins, str):
            raise ImproperlyConfigured(
                f"ws_allowed_origins={self.ws_allowed_origins!r} is one string; expected a list of origins"
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r} is unknown; expected one of {', '.join(choices)}")


def _check_history(name: str, value: int, *, keeps_history: bool) -> None:
    if value < 0:
        raise ImproperlyConfigured(f"{name}={value} is negative; 0 sends none")
    if value and not keeps_history:
        raise ImproperlyConfigured(
            f"{name}={value} needs a backend that keeps history; choose one, for example with ?history={value} in "
            "its URL, or leave the option out"
        )


def _check_seconds(name: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise ImproperlyConfigured(f"{name}={value} is not positive")
