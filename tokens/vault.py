"""Azure Key Vault: where sealed refresh tokens lie."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)
from azure.keyvault.secrets import KeyVaultSecret, SecretClient

from tokens import aadsts, http
from tokens.aadsts import Kind
from tokens.clouds import Cloud
from tokens.errors import Failure, Permanent, Transient
from tokens.http import Network
from tokens.secret import Secret

API_VERSION = "7.6"  # pinned, so that an upgrade of the package changes nothing on the wire
CONTENT_TYPE = "application/vnd.cpv.rt+json;v=1"
DEADLINE = 15.0  # seconds for one operation with everything it needs: a web request waits for it
CONNECT_TIMEOUT = 3.0  # seconds
READ_TIMEOUT = 10.0  # seconds


class VaultRefused(Permanent):
    """The vault, or Entra before it, does not let this process do that; support acts."""


class SecretMissing(Permanent):
    """The vault has no secret of that name and version."""


class VersionDisabled(Permanent):
    """The version exists and is switched off."""


class VaultUnavailable(Transient):
    """The vault did not answer, or asks to wait."""


@dataclass(frozen=True)
class VaultIdentity:
    """
    Who this process is to the vault; without a client id it is the machine's managed identity.

    Of several proofs the best is used: assertion, then certificate, then secret. `assertion` returns a fresh federated
    token for each call.
    """

    tenant_id: str = ""
    client_id: str = ""
    secret: Secret | None = None
    certificate_pem: Secret | None = None
    assertion: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """:raises ValueError: a client id and nothing to prove it with"""
        if self.client_id and not (self.secret or self.certificate_pem or self.assertion):
            raise ValueError("A vault identity with a client id needs a certificate or a secret.")


@dataclass(frozen=True)
class StoredVersion:
    """One version of a secret; `value` is the sealed text."""

    version: str
    value: str
    tags: Mapping[str, str]


class Vault:
    """
    One key vault seen by one identity; safe between threads, and nothing is sent before the first call.

    https://learn.microsoft.com/azure/key-vault/secrets/about-secrets
    """

    def __init__(
        self, *, network: Network, cloud: Cloud, url: str, identity: VaultIdentity, deadline: float = DEADLINE
    ) -> None:
        """`deadline` is in seconds and holds for each call with all the requests it needs."""
        self._deadline = deadline
        self._network, self._cloud, self._url, self._identity = network, cloud, url, identity
        self._lock = threading.Lock()
        self._made: SecretClient | None = None
        self.standing = "not used yet"  # by this process; then how the last call ended: "ok" or "unreachable"

    def put(self, name: str, value: str, *, tags: Mapping[str, str]) -> str:
        """
        Store a sealed text as the newest version and return that version's id.

        :raises VaultRefused: no right to
        :raises VaultUnavailable: unknown whether it was stored; the next `newest` tells
        """
        with self._asking() as secrets:
            return _version(secrets.set_secret(name, value, tags=dict(tags), content_type=CONTENT_TYPE))

    def get(self, name: str, version: str) -> str:
        """
        Return the sealed text of one version.

        :raises SecretMissing: no such version
        :raises VersionDisabled: switched off
        """
        return self.look(name, version).value

    def newest(self, name: str) -> StoredVersion:
        """
        Return the newest version.

        :raises SecretMissing: nothing was ever stored under this name
        :raises VersionDisabled: the newest one is switched off
        """
        return self.look(name)

    def look(self, name: str, version: str | None = None) -> StoredVersion:
        """Return one version with its tags, or the newest; raises as `get` and `newest` do."""
        with self._asking() as secrets:
            found = secrets.get_secret(name, version)
            return StoredVersion(_version(found), _value(found), dict(found.properties.tags or {}))

    def disable(self, name: str, version: str) -> None:
        """Switch one version off; doing it again changes nothing."""
        with self._asking() as secrets:
            secrets.update_secret_properties(name, version, enabled=False)

    @contextmanager
    def _asking(self) -> Iterator[SecretClient]:
        self._network.before_send()  # before azure-core is entered, which would wrap what it raises
        try:
            with _translated(), self._network.fixed_deadline(self._deadline):
                yield self._secrets()
        except VaultUnavailable:
            self.standing = "unreachable"
            raise
        except Failure:
            self.standing = "ok"  # it answered, if with a no
            raise
        self.standing = "ok"

    def _secrets(self) -> SecretClient:
        with self._lock:
            if self._made is None:
                self._made = SecretClient(self._url, self._credential(), api_version=API_VERSION, **self._options())
            return self._made

    def _credential(self) -> TokenCredential:
        who = self._identity
        if not who.client_id:
            return _managed_identity()
        options: dict[str, Any] = {
            "authority": self._cloud.login_host,
            "disable_instance_discovery": True,
        } | self._options()
        if who.assertion:
            return ClientAssertionCredential(who.tenant_id, who.client_id, who.assertion, **options)
        if who.certificate_pem:
            certificate = who.certificate_pem.reveal().encode()
            return CertificateCredential(who.tenant_id, who.client_id, certificate_data=certificate, **options)
        return ClientSecretCredential(who.tenant_id, who.client_id, (who.secret or Secret("")).reveal(), **options)

    def _options(self) -> dict[str, Any]:
        transport = RequestsTransport(
            session=self._network.session,
            session_owner=False,
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
        )
        # No retries here: azure-core would sleep through Retry-After inside a web request.
        return {"transport": transport, "retry_total": 0, "logging_enable": False}


def federated_assertion(cloud: Cloud, *, client_id: str = "") -> Callable[[], str]:
    """
    Return a function that fetches a managed identity's token to prove our app registration with.

    `client_id` names a user-assigned identity.
    https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity
    """
    identity = _managed_identity(client_id=client_id or None)

    def assertion() -> str:
        with _translated():
            return str(identity.get_token(f"{cloud.federated_audience}/.default").token)

    return assertion


def _managed_identity(**kwargs: Any) -> ManagedIdentityCredential:
    # The one exception from the one door: the machine's identity endpoint is a plain http address of the machine
    # itself, which the allow-list refuses. So it keeps its own transport.
    return ManagedIdentityCredential(
        retry_total=0, connection_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, **kwargs
    )


@contextmanager
def _translated() -> Iterator[None]:
    # "from None" throughout: azure's exceptions hold the request, and the request holds the secret.
    try:
        yield
    except ClientAuthenticationError as error:
        raise _identity_failure(error) from None
    except HttpResponseError as error:
        raise _failure(error) from None
    except AzureError:
        raise VaultUnavailable("The vault could not be reached.", code="vault-unreachable") from None
    except (ValueError, NotImplementedError, AttributeError, TypeError):
        # A challenge for another domain, a certificate that cannot be read, an answer without the fields.
        raise VaultRefused("The vault's address, identity or answer does not fit.", code="vault-config") from None


def _failure(error: HttpResponseError) -> Failure:
    status = error.status_code or 0
    code = f"vault-{status}"
    if status in (408, 429) or not 400 <= status < 500:  # a 200 gets here when its body cannot be read
        return VaultUnavailable(f"The vault asks to wait: {code}.", code=code, retry_after=_retry_after(error))
    if status == 404:
        return SecretMissing("The vault has no such secret.", code=code)
    if status == 403 and _says_disabled(error):
        return VersionDisabled("This version is switched off.", code="vault-disabled")
    return VaultRefused(f"The vault refused: {code}.", code=code)


def _identity_failure(error: ClientAuthenticationError) -> Failure:
    """Tell apart what azure-core puts into one class: a 401 of the vault, a no of Entra, and no answer at all."""
    if error.status_code:
        return _failure(error)
    cause = error.__cause__
    if isinstance(cause, Failure):  # our own network rules, wrapped by azure-identity
        return cause
    numbers = aadsts.codes_in(str(error.message))
    if numbers and aadsts.classify(numbers, "", "", 0).kind is not Kind.RETRY:
        return VaultRefused("The vault's identity was refused.", code=f"AADSTS{numbers[0]}")
    # Entra's noes carry a number. "Authentication failed" without one is a 429, a 5xx or a broken connection, whose
    # status azure-identity has dropped; other texts are its own about tenant or certificate.
    if numbers or (str(error.message).startswith("Authentication failed") and not isinstance(cause, ValueError)):
        return VaultUnavailable("The vault's identity could not be checked.", code="vault-identity")
    return VaultRefused("The vault's identity does not fit.", code="vault-identity")


def _version(found: KeyVaultSecret) -> str:
    if not found.properties.version:
        raise ValueError("no version id")
    return found.properties.version


def _value(found: KeyVaultSecret) -> str:
    if found.value is None:
        raise ValueError("no value")
    return found.value


def _says_disabled(error: HttpResponseError) -> bool:
    inner = getattr(error.error, "innererror", None)
    codes = (getattr(error.error, "code", None), inner.get("code") if isinstance(inner, dict) else None)
    return "SecretDisabled" in codes


def _retry_after(error: HttpResponseError) -> float | None:
    return http.retry_after_in(getattr(error.response, "headers", {}))
