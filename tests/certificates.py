"""Certificates for servers under test, as they and their clients take them."""

import ssl

import trustme


def write_parts(directory):
    """The paths of a certificate for localhost, and its authority, and of its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(key)
    for part in (*issued.cert_chain_pems, authority.cert_pem):
        part.write_to_path(cert, append=True)
    return cert, key


def write_whole(directory, host):
    """The path of a certificate and its key, and a context of clients that trust it."""
    authority = trustme.CA()
    path = directory / "host.pem"
    authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(path)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return path, trust
