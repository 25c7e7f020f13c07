"""An SQLite file as broker for channels: several processes on one machine, with history and positions."""

from channels_sqlite.backend import SQLiteChannelsBackend

__all__ = ("SQLiteChannelsBackend",)
