"""Keys and certificates for tests, made by openssl when they are needed and thrown away with their directory."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Pair:
    certificate: Path
    key: Path
    authority: Path  # the certificate of the authority that signed it


class Authority:
    """A certificate authority of its own in a directory of the caller's."""

    def __init__(self, directory, name: str = "authority"):
        self.directory = Path(directory)
        self.name = name
        self.certificate = self.directory / f"{name}.crt"
        self.key = self.directory / f"{name}.key"
        self._make_key(self.key)
        _openssl("req", "-x509", "-new", "-key", self.key, "-sha256", "-days", "2", "-subj", f"/CN=Test {name}",
                 "-out", self.certificate)

    def issue(self, name: str, common_name: str = "localhost",
              names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        """A certificate for a server (with `names`) or a client (with `common_name`)."""
        key, certificate = self.directory / f"{name}.key", self.directory / f"{name}.crt"
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        self._make_key(key)
        _openssl("req", "-new", "-key", key, "-subj", f"/CN={common_name}", "-out", request)
        extensions.write_text(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                 "-sha256", "-days", "2", "-extfile", extensions, "-out", certificate)
        return Pair(certificate, key, self.certificate)

    @staticmethod
    def _make_key(path: Path) -> None:
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
        os.chmod(path, 0o600)


def _openssl(*arguments) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")
