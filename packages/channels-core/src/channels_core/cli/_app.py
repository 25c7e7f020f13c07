from __future__ import annotations

import click

from channels_core.cli._backends import backends
from channels_core.cli._doctor import doctor
from channels_core.cli._group import ChannelsGroup
from channels_core.cli._publish import publish
from channels_core.cli._subscribe import subscribe


@click.group(cls=ChannelsGroup)
@click.version_option(package_name="channels-core")
def channels() -> None:
    """Publish events to channels and follow them, over any installed backend."""


for command in (backends, doctor, publish, subscribe):
    channels.add_command(command)
