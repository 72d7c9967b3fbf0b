"""What TLS listeners show and ask for: files in, a context for new connections out.  Read again on SIGHUP."""

import ssl
from pathlib import Path

from collectors.errors import ConfigError
from collectors.netflow.listening import Tls


class Certificates:
    """``context`` is None where TLS is off.  Raises ConfigError on files that will not do."""

    def __init__(self, config: Tls) -> None:
        self._config = config
        self.context: ssl.SSLContext | None = self.read() if config.port else None

    def __len__(self) -> int:
        return int(self.context is not None)

    def read(self) -> ssl.SSLContext:
        """The files as they are now."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        # TLS 1.2 alone knows it, and it costs the server more than the client.
        made.options |= ssl.OP_NO_RENEGOTIATION
        config = self._config
        for key, path in (("certificate", config.certificate), ("key", config.key)):
            _readable(key, path)
        try:
            # Without a password an encrypted key would be asked for on the terminal.
            made.load_cert_chain(config.certificate, config.key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigError(
                f"collectors.netflow.tls: {config.certificate} and {config.key} are no certificate with its "
                f"unencrypted key: {error}"
            ) from None
        if config.client_ca:
            _readable("client_ca", config.client_ca)
            try:
                made.load_verify_locations(config.client_ca)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise ConfigError(f"collectors.netflow.tls.client_ca: {config.client_ca}: {error}") from None
            made.verify_mode = ssl.CERT_REQUIRED
        return made

    def take(self, context: ssl.SSLContext) -> None:
        """Have new connections use another; those that stand keep theirs."""
        self.context = context


def _readable(key: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"collectors.netflow.tls.{key}: {path}: {error.strerror or error}") from None
