"""Every error that channels raises on purpose, in one tree.

::

    ChannelsException
    ├── ImproperlyConfigured (ValueError)      options that contradict each other
    │   └── InvalidURL                         a backend URL that cannot be read
    ├── NotStarted (RuntimeError)              used before start or after stop
    ├── UnknownChannel (LookupError)           the channel was not declared
    ├── SerializationError (TypeError)         data that the encoder refuses
    ├── MessageTooLarge (ValueError)           more bytes than the backend takes
    ├── PublishQueueFull (BufferError)         more than ``max_pending`` events wait
    ├── PublishError (RuntimeError)            the broker did not accept an event
    ├── InvalidCursor (ValueError)             a damaged cursor token or position
    ├── HistoryNotSupported (RuntimeError)     the backend keeps no history
    ├── BacklogOverflow (BufferError)          the stream of a slow subscriber ended
    ├── SubscriberBusy (RuntimeError)          a second consumer of one stream
    ├── ShutdownTimeout (TimeoutError)         stopped with events not delivered
    ├── BackendConnectionError (ConnectionError)  the broker is away; retried
    ├── BackendError (RuntimeError)            the broker refused; never retried
    ├── UnknownBackend (LookupError)           no distribution claims the URL's scheme
    ├── AmbiguousBackend (LookupError)         two distributions claim it
    └── BackendLoadError (ImportError)         the distribution that claims it is broken

`BackendConnectionError` and `BackendError` are siblings on purpose: whoever catches "refused" must not
catch "away", because one is retried and the other never.
"""

__all__ = (
    "AmbiguousBackend",
    "BackendConnectionError",
    "BackendError",
    "BackendLoadError",
    "BacklogOverflow",
    "ChannelsException",
    "HistoryNotSupported",
    "ImproperlyConfigured",
    "InvalidCursor",
    "InvalidURL",
    "MessageTooLarge",
    "NotStarted",
    "PublishError",
    "PublishQueueFull",
    "SerializationError",
    "ShutdownTimeout",
    "SubscriberBusy",
    "UnknownBackend",
    "UnknownChannel",
)


class ChannelsException(Exception):
    """Root of every error that channels raises on purpose."""


class ImproperlyConfigured(ChannelsException, ValueError):
    """Options contradict each other or are out of range."""


class InvalidURL(ImproperlyConfigured):
    """A backend URL has an unknown parameter or a value that cannot be read; the message lists the valid ones."""


class NotStarted(ChannelsException, RuntimeError):
    """The plugin or backend was used before it was started or after it was stopped."""


class UnknownChannel(ChannelsException, LookupError):
    """The channel was not declared and arbitrary channels are not allowed."""


class SerializationError(ChannelsException, TypeError):
    """The encoder cannot turn the data into bytes."""


class MessageTooLarge(ChannelsException, ValueError):
    """The encoded event has more bytes than the backend's ``max_payload``; nothing was sent."""


class PublishQueueFull(ChannelsException, BufferError):
    """More than ``max_pending`` events wait to be published; this one was not queued."""


class PublishError(ChannelsException, RuntimeError):
    """The broker refused an event, or did not accept it in time; the cause is chained."""


class InvalidCursor(ChannelsException, ValueError):
    """The text is no cursor token (or position) of ours, or was damaged on its way."""


class HistoryNotSupported(ChannelsException, RuntimeError):
    """The backend keeps no history."""


class BacklogOverflow(ChannelsException, BufferError):
    """The subscriber was too slow, and its strategy is to end the stream."""


class SubscriberBusy(ChannelsException, RuntimeError):
    """Somebody else already consumes this event stream."""


class ShutdownTimeout(ChannelsException, TimeoutError):
    """The plugin stopped before everything in its publish queue was accepted.

    Attributes:
        undelivered: How many calls of ``publish`` had not been accepted by the broker.
    """

    def __init__(self, message: str | None = None, *, undelivered: int) -> None:
        super().__init__(message or f"stopped with {undelivered} published events not accepted by the broker")
        self.undelivered = undelivered


class BackendConnectionError(ChannelsException, ConnectionError):
    """The broker is not reachable, or the connection was lost; the plugin retries."""


class BackendError(ChannelsException, RuntimeError):
    """The broker answered and refused; the plugin never retries."""


class UnknownBackend(ChannelsException, LookupError):
    """No installed distribution registers the URL's scheme."""


class AmbiguousBackend(ChannelsException, LookupError):
    """More than one installed distribution registers the URL's scheme."""


class BackendLoadError(ChannelsException, ImportError):
    """The distribution that registers the URL's scheme cannot be loaded, or gives something else than a backend."""
