"""The way out of a company's network: a CONNECT proxy, and a certificate authority of its own."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AUTHORITY = "Acme Company Root CA"


@dataclass
class ConnectProxy:
    """`asked`: the request lines so far. `refuse`: answer so instead of connecting. `password`: `user:password` that it
    wants."""

    url: str = ""
    refuse: str = ""
    password: str = ""
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def connect_proxy(port: int = 0, *, refuse: str = "", password: str = "") -> Iterator[ConnectProxy]:
    """Tunnels CONNECT, and forwards a request with an absolute URL; on a free port, or the given one."""
    proxy = ConnectProxy(refuse=refuse, password=password)
    listener = socket.create_server(("127.0.0.1", port))
    proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sockets = [listener]

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                sockets.append(client)
                threading.Thread(target=_serve, args=(proxy, client, sockets), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _serve(proxy: ConnectProxy, client: socket.socket, sockets: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := client.recv(65536)):
                return
            head += chunk
        line = head.split(b"\r\n", 1)[0].decode()
        proxy.asked.append(line)
        wanted = base64.b64encode(proxy.password.encode()).decode()
        refuse = "407 Proxy Authentication Required" if proxy.password and wanted not in head.decode() else proxy.refuse
        if refuse:
            client.sendall(f"HTTP/1.1 {refuse}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            client.close()
            return
        method, target, _ = line.split(" ")
        address = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = address.partition(":")
        upstream = socket.create_connection((host, int(port or 80)))
        sockets.append(upstream)
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            upstream.sendall(head.replace(f"http://{address}".encode(), b"", 1).replace(b"  HTTP", b" / HTTP", 1))
        threading.Thread(target=_pump, args=(upstream, client), daemon=True).start()
        _pump(client, upstream)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Authority:
    """`file`: its certificate, in PEM; `server`: a context for a server at localhost and 127.0.0.1."""

    file: Path
    server: ssl.SSLContext


def authority(folder: Path) -> Authority:
    """A certificate authority that no system knows, with one certificate that it signed."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    root = _certificate(ca, ca, ca_key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    leaf = _certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), ca, key.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), False)
    file, chain, secret = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    file.write_bytes(root.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    chain.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    return Authority(file, context)


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
