"""Redis backends for channels: Pub/Sub, and streams with history."""

from channels_redis.pubsub import RedisChannelsPubSubBackend
from channels_redis.streams import RedisChannelsStreamBackend

__all__ = ("RedisChannelsPubSubBackend", "RedisChannelsStreamBackend")
