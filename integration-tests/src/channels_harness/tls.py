"""Certificates for a server on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trustme

__all__ = ("Certificates",)


class Certificates:
    """An authority of our own and one certificate for loopback, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.authority: Final = folder / "authority.pem"
        self.certificate: Final = folder / "server.pem"
        self.key: Final = folder / "server.key"
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(str(self.authority))
        issued.private_key_pem.write_to_path(str(self.key))
        for part in issued.cert_chain_pems:
            part.write_to_path(str(self.certificate), append=True)
