"""The list of rules, each with what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from channels_core.testing.subject import HOOKS, Subject

if TYPE_CHECKING:
    from channels_core.testing.stage import Stage

__all__ = ("INSTANCES", "RULES", "Instances", "NotApplicable", "NotProved", "Rule", "RuleBroken", "check", "rule")

Instances = Literal["one", "several"]
"""Whether publishing and receiving go through one instance or through different ones."""

Body = Callable[["Stage"], Awaitable[None]]

INSTANCES: Final[tuple[Instances, ...]] = ("one", "several")
"""Every rule is tried in both ways."""

_MARK: Final = "Troubleshooting:"


class RuleBroken(AssertionError):
    """The backend breaks the rule; the message says what was seen."""


class NotApplicable(Exception):
    """The rule says nothing about such a backend."""


class NotProved(Exception):
    """Something is missing that the rule needs, such as a hook."""


class Rule(msgspec.Struct, frozen=True):
    """One promise of the backend contract, and how to try it.

    Attributes:
        id: Stable name, in words with hyphens.
        group: The capability that it belongs to.
        sentence: The promise.
        troubleshooting: Where to look when it is broken.
        body: Tries it.
        history: True: for backends with history. False: for those without. None: for all.
        hooks: What the subject must define.
    """

    id: str
    group: str
    sentence: str
    troubleshooting: str
    body: Body
    history: bool | None
    hooks: tuple[str, ...]

    def require(self, subject: Subject) -> None:
        """Raise `NotApplicable` or `NotProved` unless the subject has what the rule needs."""
        if self.history is not None and self.history != subject.keeps_history:
            raise NotApplicable("keeps no history" if self.history else "keeps history")
        missing = subject.missing_hooks(self.hooks)
        if missing:
            raise NotProved(f"needs {' and '.join(f'{name}()' for name in missing)}")

    @property
    def needs(self) -> str:
        """What the rule needs, in words."""
        history = {True: ["history"], False: ["no history"], None: []}[self.history]
        return ", ".join([*history, *(f"`{name}()`" for name in self.hooks)])


RULES: Final[dict[str, Rule]] = {}
"""Every rule by its id, in the order of the documentation."""


def rule(*, history: bool | None = None, hooks: tuple[str, ...] = ()) -> Callable[[Body], Body]:
    """Register a coroutine function as a rule; name, sentence and troubleshooting come from the function."""

    def register(body: Body) -> Body:
        made = _make(body, history, hooks)
        if made.id in RULES:
            raise ValueError(f"two rules are called {made.id!r}")
        RULES[made.id] = made
        return body

    return register


def check(condition: bool, message: str) -> None:
    """Raise `RuleBroken` with the message unless the condition holds."""
    if not condition:
        raise RuleBroken(message)


def _make(body: Body, history: bool | None, hooks: tuple[str, ...]) -> Rule:
    name: str = body.__name__
    sentence, mark, troubleshooting = inspect.cleandoc(body.__doc__ or "").partition(_MARK)
    if not mark or not set(hooks) <= set(HOOKS):
        raise ValueError(f"rule {name!r} needs a docstring with {_MARK!r} and known hooks")
    group = body.__module__.rpartition(".")[2].replace("_", " ")
    return Rule(name.replace("_", "-"), group, _line(sentence), _line(troubleshooting), body, history, hooks)


def _line(text: str) -> str:
    return " ".join(text.split())
