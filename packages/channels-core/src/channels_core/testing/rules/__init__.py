"""The rules, by capability; importing this package registers all of them, in the order of the documentation."""

from importlib import import_module
from typing import Final

MODULES: Final = (
    "declarations",
    "payloads",
    "names",
    "subscribing",
    "publishing",
    "history",
    "paging",
    "retries",
    "lifecycle",
    "connections",
    "plugin_streams",
    "plugin_faults",
    "idleness",
)

for _name in MODULES:
    import_module(f"{__name__}.{_name}")
