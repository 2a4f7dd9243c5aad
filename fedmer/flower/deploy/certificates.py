"""The authority of a federation, its server's certificate, the keys of its nodes, and their checks.

Everything is elliptic: P-256 for the certificates, P-384 for the nodes, as Flower asks.
"""

import ipaddress
import socket
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
_SECONDS_TO_ANSWER = 10.0

# The numbers are those of OpenSSL's X509_V_ERR_*; the ssl module has no names for them.
_NOT_YET, _EXPIRED, _NAME, _ADDRESS = 9, 10, 62, 64


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
    authority = (
        _builder(authority_name, authority_name, authority_key, begin, end + _AUTHORITY_OUTLIVES)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = ec.generate_private_key(ec.SECP256R1())
    names = list(dict.fromkeys((host, *LOOPBACK)))
    server = (
        _builder(_name("fedmer server"), authority_name, key, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _pair(authority_key, authority), _pair(key, server)


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
            f"{certificate} expired on {found.not_valid_after_utc:%Y-%m-%d}; make a new "
            "federation with 'fedmer deploy init' and carry its folders to the nodes."
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


def answers(host: str, port: int, authority: Path) -> bool:
    """Shake hands with the server as a node will, and say in words what is wrong.

    Args:
        host: The name or IP address to dial, which the certificate has to hold.
        port: Where the server listens.
        authority: The certificate of the federation's authority.

    Returns:
        False if nobody answers there yet.

    Raises:
        InputError: Somebody answers, but is not the server of this federation.
    """
    where = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{authority} is not a certificate ({error}); carry the node's folder here again."
        ) from error
    try:
        with (
            socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except ssl.SSLCertVerificationError as error:
        raise InputError(_verdict(error, where, authority)) from error
    except ssl.SSLEOFError:
        # A server that is just coming up or going down hangs up like this.
        return False
    except ssl.SSLError as error:
        raise InputError(
            f"What answers at {where} does not speak TLS ({error.reason}); another program "
            "has that port, or the folder names another server."
        ) from error
    except socket.gaierror as error:
        raise InputError(
            f"The name {host} is not known here ({error.strerror}); check the network, or the "
            "address in node.json."
        ) from error
    except OSError:
        return False


def _verdict(error: ssl.SSLCertVerificationError, where: str, authority: Path) -> str:
    if error.verify_code == _EXPIRED:
        return (
            f"The certificate of the server at {where} has expired; make a new federation with "
            "'fedmer deploy init' and carry its folders to the nodes (or set this clock)."
        )
    if error.verify_code == _NOT_YET:
        return (
            f"The certificate of the server at {where} does not hold yet; set the clock of "
            "this machine, or of the one where 'fedmer deploy init' ran."
        )
    if error.verify_code in (_NAME, _ADDRESS):
        return (
            f"The certificate of the server at {where} is for another host; dial the host that "
            "was given to 'fedmer deploy init --host'."
        )
    return (
        f"The server at {where} is not the one of this federation: its certificate was not "
        f"signed by {authority} ({error.verify_message}); take the folder that was made "
        "together with that server."
    )


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
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
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
