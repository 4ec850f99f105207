"""A certificate for 127.0.0.1, by an authority of its own."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Certificate:
    """Files, as PEM."""

    authority: Path
    certificate: Path
    key: Path

    def redis_options(self, port: int) -> list[str]:
        """Have a Redis server speak TLS on this port too, and with the servers it knows."""
        options = ["--tls-port", str(port), "--tls-replication", "yes", "--tls-auth-clients", "no"]
        options += ["--tls-ca-cert-file", str(self.authority)]
        return [*options, "--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)]


def certificate(home: Path) -> Certificate:
    made = Certificate(home / "authority.pem", home / "server.pem", home / "server.key")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "doorbuster tests")])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    made.authority.write_bytes(pem)
    made.certificate.write_bytes(pem)
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made
