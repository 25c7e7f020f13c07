from __future__ import annotations

import sys

import click

from channels_core.cli._run import run
from channels_core.plugin import ChannelsPlugin


@click.command
@click.argument("url")
@click.argument("channel")
@click.argument("data")
def publish(url: str, channel: str, data: str) -> None:
    """Publish DATA to CHANNEL of the broker at URL, and wait until the broker accepted it.

    DATA is sent as it stands, encoded as UTF-8; "-" sends all bytes of the standard input.
    """
    payload = sys.stdin.buffer.read() if data == "-" else data.encode()
    run(_publish(url, channel, payload))
    click.echo(f"published {len(payload)} bytes to {channel!r}")


async def _publish(url: str, channel: str, payload: bytes) -> None:
    async with ChannelsPlugin(url, channels=[channel]) as plugin:
        await plugin.wait_published(payload, [channel])
