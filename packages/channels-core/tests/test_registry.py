from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from throwaway import COMPLETE_BACKEND, Installer

from channels_core import registry
from channels_core.exceptions import AmbiguousBackend, BackendLoadError, InvalidURL, UnknownBackend
from channels_core.memory import MemoryChannelsBackend
from channels_core.registry import BACKENDS, backend_class, create_backend, installed_backends

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _forget_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_class_of", cache(registry._class_of.__wrapped__))


@pytest.fixture
def scheme() -> str:
    return f"throwaway{next(_numbers)}"


@contextmanager
def only_installed(monkeypatch: pytest.MonkeyPatch, *sites: Path) -> Iterator[None]:
    """Hide every distribution but those in the given folders."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(site) for site in sites])
        yield


def test_memory_comes_through_the_same_door() -> None:
    """The memory backend is found by its entry point."""
    assert backend_class("memory://") is MemoryChannelsBackend
    assert installed_backends()["memory"][0].dist is not None


def test_create_passes_the_url_on(install: Installer, scheme: str) -> None:
    """The class builds itself from the whole URL."""
    module = install.module(COMPLETE_BACKEND)
    install.distribution("third", {BACKENDS: {scheme: f"{module}:Backend"}})
    assert vars(create_backend(f"{scheme}://u:p@h/0?x=1"))["url"] == f"{scheme}://u:p@h/0?x=1"


def test_plus_is_written_as_dot(install: Installer, scheme: str) -> None:
    """A ``+`` in the scheme is a dot in the entry point's name."""
    module = install.module(COMPLETE_BACKEND)
    install.distribution("third", {BACKENDS: {f"{scheme}.fast": f"{module}:Backend"}})
    assert backend_class(f"{scheme}+fast://").__module__ == module


def test_scheme_ignores_case(install: Installer, scheme: str) -> None:
    """Schemes are case-insensitive, as in every URL."""
    module = install.module(COMPLETE_BACKEND)
    install.distribution("third", {BACKENDS: {scheme: f"{module}:Backend"}})
    assert backend_class(f"{scheme.upper()}://").__module__ == module


def test_nothing_unnamed_is_imported(install: Installer, scheme: str) -> None:
    """Finding one backend does not import another."""
    named, unnamed = install.module(COMPLETE_BACKEND), install.module("raise SystemExit('imported')")
    install.distribution("third", {BACKENDS: {scheme: f"{named}:Backend", f"{scheme}.other": f"{unnamed}:Backend"}})
    assert backend_class(f"{scheme}://").__module__ == named
    assert unnamed not in sys.modules


def test_class_is_cached(install: Installer, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look-up reads no metadata."""
    module = install.module(COMPLETE_BACKEND)
    install.distribution("third", {BACKENDS: {scheme: f"{module}:Backend"}})
    first = backend_class(f"{scheme}://")
    monkeypatch.setattr("channels_core.registry.installed_backends", lambda: pytest.fail("searched again"))
    assert backend_class(f"{scheme}://elsewhere") is first


def test_failure_is_not_cached(install: Installer, scheme: str) -> None:
    """A scheme that was unknown is found once its distribution is there."""
    with pytest.raises(UnknownBackend):
        backend_class(f"{scheme}://")
    module = install.module(COMPLETE_BACKEND)
    install.distribution("third", {BACKENDS: {scheme: f"{module}:Backend"}})
    assert backend_class(f"{scheme}://").__module__ == module


def test_text_without_scheme_is_refused() -> None:
    """Text that is no URL is refused as such."""
    with pytest.raises(InvalidURL, match="expected SCHEME://"):
        create_backend("localhost")


def test_unknown_lists_installed_and_suggests(install: Installer, scheme: str) -> None:
    """An unknown scheme lists what is installed and suggests the nearest."""
    install.distribution("third", {BACKENDS: {scheme: "missing:Backend"}})
    with pytest.raises(UnknownBackend) as caught:
        create_backend(f"{scheme}x://user:hunter2@host")
    message = str(caught.value)
    assert f"did you mean {scheme}://" in message
    assert "installed are " in message
    assert "memory://" in message
    assert "hunter2" not in message


def test_unknown_without_anything_near() -> None:
    """A scheme like no other gets no suggestion."""
    with pytest.raises(UnknownBackend) as caught:
        create_backend("zzz://")
    assert "did you mean" not in str(caught.value)


def test_unknown_with_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing at all is installed the message says so."""
    with only_installed(monkeypatch), pytest.raises(UnknownBackend, match="installed are none"):
        create_backend("zzz://")


@pytest.mark.parametrize(
    "url, requirement",
    [
        ("redis://", "channels-redis"),
        ("rediss+sentinel+streams://", "channels-redis"),
        ("postgres://", "channels-postgres"),
        ("postgresql+psycopg://", "channels-postgres[psycopg]"),
    ],
)
def test_unknown_names_our_distribution(url: str, requirement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For schemes that we know the message names what to install, and how to tell it from its namesake."""
    with only_installed(monkeypatch), pytest.raises(UnknownBackend) as caught:
        create_backend(url)
    assert f"pip install '{requirement}'" in str(caught.value)
    assert "ours requires channels-core" in str(caught.value)


def test_unknown_recognises_the_namesake(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unrelated distribution under our name is said to be unrelated."""
    site = install.distribution("channels-redis", {}, requires=["channels>=4", "redis"])
    with (
        only_installed(monkeypatch, site),
        pytest.raises(UnknownBackend, match=r"channels-redis 1\.5 is installed, but it is not ours"),
    ):
        create_backend("redis://")


def test_unknown_variant_of_ours(install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own distribution without this scheme is not called unrelated."""
    site = install.distribution("channels-redis", {}, requires=["redis", "channels-core<0.2,>=0.1"])
    with (
        only_installed(monkeypatch, site),
        pytest.raises(UnknownBackend, match=r"channels-redis 1\.5 is installed and does not know this scheme"),
    ):
        create_backend("redis+pigeon://")


def test_two_claims_are_refused(install: Installer, scheme: str) -> None:
    """A scheme that two distributions claim is refused, and both are named."""
    module = install.module(COMPLETE_BACKEND)
    for name in ("second-owner", "first-owner"):
        install.distribution(name, {BACKENDS: {scheme: f"{module}:Backend"}})
    with pytest.raises(AmbiguousBackend, match=r"first-owner 1\.5 and second-owner 1\.5"):
        create_backend(f"{scheme}://")


@pytest.mark.parametrize(
    "source, reference, problem",
    [
        ("import no_such_module_at_all", "Backend", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("x = 1", "Backend", "AttributeError: "),
        ("raise RuntimeError", "Backend", "but RuntimeError"),
        ("Backend = 3", "Backend", "3 is no subclass of channels_core.backend.ChannelsBackend"),
        ("Backend = dict", "Backend", "<class 'dict'> is no subclass"),
        (
            "from channels_core.backend import ChannelsBackend as Backend",
            "Backend",
            "it lacks the methods from_url, on_shutdown, on_startup, publish, stream_events, subscribe, unsubscribe",
        ),
    ],
)
def test_broken_backend_is_named(install: Installer, scheme: str, source: str, reference: str, problem: str) -> None:
    """A distribution that cannot deliver what it registers is named, with the reason."""
    module = install.module(source)
    install.distribution("broken", {BACKENDS: {scheme: f"{module}:{reference}"}})
    with pytest.raises(BackendLoadError) as caught:
        create_backend(f"{scheme}://user:hunter2@host")
    assert f"{scheme}:// is registered by broken 1.5 as '{module}:{reference}', but " in str(caught.value)
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_missing_extra_is_named(install: Installer, scheme: str) -> None:
    """Where the missing module belongs to an extra, the message says which extra to install."""
    module = install.module("import some_driver.deep")
    requires = ["msgspec", 'Some-Driver[fast]>=3 ; extra == "turbo"']
    install.distribution("broken", {BACKENDS: {scheme: f"{module}:Backend"}}, requires=requires)
    with pytest.raises(BackendLoadError, match=r"pip install 'broken\[turbo\]'"):
        create_backend(f"{scheme}://")


def test_missing_requirement_without_extra(install: Installer, scheme: str) -> None:
    """A missing module that no extra explains gets no advice to install one."""
    module = install.module("import some_driver")
    requires = ['other; extra == "turbo"', "some-driver"]
    install.distribution("broken", {BACKENDS: {scheme: f"{module}:Backend"}}, requires=requires)
    with pytest.raises(BackendLoadError) as caught:
        create_backend(f"{scheme}://")
    assert "pip install" not in str(caught.value)


def test_broken_namesake_is_explained(install: Installer, scheme: str) -> None:
    """A failure in a distribution of our name says how to tell ours from the other."""
    install.distribution("channels-redis", {BACKENDS: {scheme: "no_such_module_at_all:Backend"}})
    with pytest.raises(BackendLoadError, match="ours requires channels-core"):
        create_backend(f"{scheme}://")
