"""Send many commands to the servers that their keys live on, and the redirected ones again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from channels_core.exceptions import BackendConnectionError
from channels_redis._errors import Ask, Moved, Redirect, Unloaded, has_errors, is_demotion
from channels_redis._node import Line, Node
from channels_redis._settle import settle
from channels_redis._topology import Cluster, Topology
from channels_redis._wire import Reply, Wire, pack

__all__ = ("Dispatcher",)

ROUNDS: Final = 5
"""How often a command follows redirections: a slot that moves answers with two at most."""

CommandT = TypeVar("CommandT")


class Dispatcher(Generic[CommandT]):
    """One kind of command: how to find its key, how to pack many, and which connection of a node it uses.

    Args:
        topology: Where the servers are.
        key: The key (or Pub/Sub channel) of a command.
        pack_all: Packs commands for one wire; each of them gets one reply.
        line: The connection of a node to use.
        again: The reply that, besides redirections, says "not run, send it again".
    """

    def __init__(
        self,
        topology: Topology,
        *,
        key: Callable[[CommandT], bytes],
        pack_all: Callable[[Wire, Sequence[CommandT]], bytes],
        line: Callable[[Node], Line],
        again: int | None = None,
    ) -> None:
        self._topology: Final = topology
        self._key: Final = key
        self._pack: Final = pack_all
        self._line: Final = line
        self._again: Final = again

    async def send(self, commands: Sequence[CommandT]) -> list[Reply]:
        """Run the commands, those of one key in order, and return their replies.

        Raises:
            BackendConnectionError: A connection was lost or a server is not ready; unknown which commands ran.
        """
        replies = await self._round(commands)
        for _ in range(ROUNDS):
            pending = self._pending(replies)
            if not pending:
                return replies
            repeated = await self._repeat([(commands[index], replies[index]) for index in pending])
            for index, reply in zip(pending, repeated, strict=True):
                replies[index] = reply
        raise BackendConnectionError(f"redis redirected a command {ROUNDS} times; the cluster does not settle")

    def _pending(self, replies: Sequence[Reply]) -> list[int]:
        """Return which commands were not run."""
        refused = self._again is not None and self._again in replies
        if not refused and not has_errors(replies):
            return []
        return [
            n for n, reply in enumerate(replies) if isinstance(reply, Redirect) or (refused and reply == self._again)
        ]

    async def _round(self, commands: Sequence[CommandT]) -> list[Reply]:
        await self._topology.find()
        if not isinstance(self._topology, Cluster):
            return await self._call(self._topology.nodes[0], commands)
        return await self._scatter(commands, (self._topology.node_of(self._key(each)) for each in commands))

    async def _repeat(self, redirected: Sequence[tuple[CommandT, Reply]]) -> list[Reply]:
        """Follow redirections; a key whose commands were redirected differently is still served in order."""
        commands = [command for command, _ in redirected]
        if not isinstance(self._topology, Cluster):
            return await self._round(commands)
        asked: dict[bytes, Node] = {}
        for command, reply in redirected:
            if isinstance(reply, Moved):
                self._follow(self._topology, reply)
            elif isinstance(reply, Ask):
                asked[self._key(command)] = self._topology.node_at(reply.address)
        nodes = [asked.get(self._key(each)) or self._topology.node_of(self._key(each)) for each in commands]
        return await self._scatter(commands, nodes, asking=asked.keys())

    def _follow(self, cluster: Cluster, moved: Moved) -> None:
        cluster.suspect()
        cluster.move(moved.slot, moved.address)

    async def _scatter(
        self, commands: Sequence[CommandT], nodes: Iterable[Node], asking: Iterable[bytes] = ()
    ) -> list[Reply]:
        groups: defaultdict[Node, list[int]] = defaultdict(list)
        for index, node in enumerate(nodes):
            groups[node].append(index)
        asked = frozenset(asking)
        calls = (self._call(node, [commands[index] for index in group], asked) for node, group in groups.items())
        replies: list[Reply] = [None] * len(commands)
        for group, answer in zip(groups.values(), await settle(calls), strict=True):
            for index, reply in zip(group, answer, strict=True):
                replies[index] = reply
        return replies

    async def _call(
        self, node: Node, commands: Sequence[CommandT], asking: frozenset[bytes] = frozenset()
    ) -> list[Reply]:
        try:
            wire = await self._line(node).wire()
            replies = await self._call_wire(wire, commands, asking)
        except BackendConnectionError:
            self._topology.suspect()
            raise
        return self._judge(wire, replies)

    async def _call_wire(self, wire: Wire, commands: Sequence[CommandT], asking: frozenset[bytes]) -> list[Reply]:
        if not asking:
            return await wire.call(self._pack(wire, commands), len(commands))
        packed: list[bytes] = []
        for command in commands:
            packed += (pack(b"ASKING"), self._pack(wire, (command,)))
        # ASKING does no harm where the node serves the slot anyway.
        return (await wire.call(b"".join(packed), 2 * len(commands)))[1::2]

    def _judge(self, wire: Wire, replies: list[Reply]) -> list[Reply]:
        for reply in replies if has_errors(replies) else ():
            if isinstance(reply, Unloaded):
                wire.retire()
            elif isinstance(reply, BackendConnectionError):
                if is_demotion(reply):
                    wire.retire()
                self._topology.suspect()
                raise reply
        return replies
