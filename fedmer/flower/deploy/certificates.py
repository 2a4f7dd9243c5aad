"""The authority of a federation, its server's certificate, the keys of its nodes, and their checks.

Everything is elliptic: P-256 for the certificates, P-384 for the nodes, as Flower asks.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmer.errors import InputError

# The SuperLink's own children reach it here, whatever the nodes dial.
LOOPBACK = ("127.0.0.1", "localhost")

_AUTHORITY_OUTLIVES = timedelta(days=3650)


@dataclass(frozen=True)
class Pair:
    """A private key and what is public of it, both as the files hold them."""

    private: bytes
    public: bytes


def certificates(host: str, begin: datetime, end: datetime) -> tuple[Pair, Pair]:
    """Make an authority and the certificate of one server.

    Args:
        host: What the nodes dial, a name or an IPv4 address.
        begin: From when the certificate holds.
        end: Until when; the authority holds for ten years more.

    Returns:
        The authority's key and certificate, and the server's.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("fedmer federation")
    authority_end = end + _AUTHORITY_OUTLIVES
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), begin, authority_end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(list(map(_general, dict.fromkeys((host, *LOOPBACK)))))
    server = _signed(names, key.public_key(), authority, authority_key, begin, end)
    return _pair(authority_key, authority), _pair(key, server)


def renewed(
    certificate: bytes, authority: bytes, authority_key: bytes, begin: datetime, end: datetime
) -> bytes:
    """The certificate of a server once more, for another time, signed by the same authority.

    The server's key stays, so that one file is all that changes.

    Args:
        certificate: The one that there is, for its key and its host.
        authority: The authority's certificate.
        authority_key: And its private key.
        begin: From when the new one holds.
        end: Until when; not beyond the authority's own end.

    Raises:
        ValueError: One of the three cannot be read, or they do not belong together.
    """
    old, signer = map(x509.load_pem_x509_certificate, (certificate, authority))
    key = serialization.load_pem_private_key(authority_key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != signer.public_key():
        raise ValueError("the key is not the authority's")
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    public = old.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return _signed(names, public, signer, key, begin, end).public_bytes(serialization.Encoding.PEM)


def ends(certificate: Path) -> datetime:
    """When a certificate ends.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise InputError(
            f"{certificate} is not a certificate ({error}); restore it from where "
            "'fedmer deploy init' wrote it."
        ) from error


def node_key(name: str) -> Pair:
    """The key of a node, as ``ssh-keygen -t ecdsa -b 384 -N ""`` writes one.

    Args:
        name: Of the node; becomes the comment of the public key.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return Pair(private, public + f" {name}\n".encode())


def check_server(certificate: Path, key: Path) -> None:
    """Refuse a certificate that no node would accept.

    Raises:
        InputError: It cannot be read, has expired, does not hold yet, or is not the key's.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        # Among them ssl.SSLError, for a key that belongs to another certificate.
        raise InputError(
            f"{certificate} and {key} cannot be used as a certificate and its key ({error}); "
            "restore both from where 'fedmer deploy init' wrote them."
        ) from error
    now = datetime.now(UTC)
    if now > found.not_valid_after_utc:
        raise InputError(
            f"{certificate} expired on {found.not_valid_after_utc:%Y-%m-%d}; renew it with "
            "'fedmer deploy renew DIR'."
        )
    if now < found.not_valid_before_utc:
        raise InputError(
            f"{certificate} holds only from {found.not_valid_before_utc:%Y-%m-%d} on; "
            "set this machine's clock."
        )


def check_node_key(key: Path) -> None:
    """Refuse a file that is not a node's private key.

    Raises:
        InputError: It cannot be read or is no unencrypted elliptic key.
    """
    try:
        found = serialization.load_ssh_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{key} is not a private key of a node ({error}); carry the node's folder here again."
        ) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise InputError(f"{key} is not an elliptic key; carry the node's folder here again.")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    names: x509.SubjectAlternativeName,
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.Certificate:
    """A server's certificate."""
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(_name("fedmer server"), authority.subject, key, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(private, certificate.public_bytes(serialization.Encoding.PEM))
