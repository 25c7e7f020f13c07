"""The ``channels`` command; needs the extra ``cli``.

Other distributions add commands through the entry-point group ``channels_core.commands``: the name is the
command's, the object a `click.Command`.
"""

from channels_core.cli._main import main

__all__ = ("main",)
