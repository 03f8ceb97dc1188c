"""Connection to a search cluster: URL, authentication, and the client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stair_es.cluster.client import tls
from stair_es.cluster.client.auth import SecuritySettings, read_secret, read_security_settings, resolve_url_login
from stair_es.cluster.client.opensearch import OpenSearch, Urllib3AWSV4SignerAuth
from stair_es.cluster.client.transport import NodeConnection, RequestHook
from stair_es.config.defaults import ENV_URL
from stair_es.embedded_node.lifecycle import find_node_url
from stair_es.embedded_node.spec import NodeSpec
from stair_es.errors import AuthenticationFailed, UsageError
from stair_es.optional import import_optional
from stair_es.urls import remove_login, split_node_urls

# Concurrent requests to one node without a new TCP and TLS handshake for each.
_POOL = 32
_NO_SECURITY = SecuritySettings()
_URL_REMEDY = (
    "Write it like http://localhost:9200 or https://user:password@host:9200 "
    "(in a password, write characters like / ? # @ as %2F %3F %23 %40)."
)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """URL and authentication of a cluster. Picklable: workers build their own client from it. No secret is in its `repr`.

    Raises:
        UsageError: On construction, for an invalid URL or conflicting settings.
    """

    url: str = field(repr=False)
    """`http[s]://[user:password@]host[:port][/prefix]`; several nodes of one cluster, separated by commas."""
    timeout_s: float = 30.0
    security: SecuritySettings = _NO_SECURITY
    request_hooks: tuple[RequestHook, ...] = field(default=(), repr=False)
    """Contexts of each request of its clients, the outermost first. Not pickled: workers in other processes have none."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "request_hooks": ()}

    def __post_init__(self) -> None:
        security = resolve_url_login(split_node_urls(self.url), self.security, "a cluster URL", _URL_REMEDY)
        object.__setattr__(self, "security", security)

    @classmethod
    def from_env(
        cls, url: str | None = None, options: Mapping[str, str | None] | None = None, environ: Mapping[str, str] = os.environ
    ) -> Connection:
        """Build the connection to `url`, or to `STAIR_ES_URL` (or `STAIR_ES_URL_FILE`); other settings come from the environment.

        Without a URL it is that of the embedded node of `STAIR_ES_HOME` if it runs, which needs no other settings.

        Args:
            url: As in the class.
            options: Settings that aren't secret, by the field names of `SecuritySettings`; they override the environment.
            environ: The environment.

        Raises:
            UsageError: If there is no URL and no running node, or settings conflict.
            NodeError: If the state of the embedded node can't be read.
            MissingExtra: If the embedded node was started, and the extra `node` is not installed.
        """
        url = url or read_secret(ENV_URL, environ)
        if not url:
            node_url = find_node_url(NodeSpec.from_home(environ=environ))
            if node_url is None:
                raise UsageError(
                    "no cluster given, and no embedded node runs",
                    f"Set {ENV_URL}, or start the embedded node: stair-es node up",
                    code="no-cluster",
                )
            return cls(url=node_url)
        return cls(url=url, security=read_security_settings(options or {}, environ))

    @property
    def nodes(self) -> list[str]:
        """The URL of each node, without credentials."""
        return [remove_login(part) for part in split_node_urls(self.url)]

    @property
    def safe_url(self) -> str:
        """The URL without credentials: the only form that may be printed, logged or stored."""
        return ",".join(self.nodes)

    def __repr__(self) -> str:
        return f"Connection({self.safe_url!r}, login={self.security.method!r})"

    def redact(self, text: str) -> str:
        """Redact the secrets of this connection in a text."""
        return self.security.redact(text)

    def client(self) -> OpenSearch:
        """Create a client. It speaks plain REST, so it works with OpenSearch and Elasticsearch.

        With several nodes, one that fails or hangs is skipped for a minute, and the request goes to the next one.

        Raises:
            UsageError: If a certificate or key can't be used, or the AWS configuration names no region.
            AuthenticationFailed: If there are no AWS credentials.
            MissingExtra: If AWS requires the extra `aws` and it isn't installed.
        """
        nodes = self.nodes
        options: dict[str, Any] = {"request_hooks": self.request_hooks}
        if any(node.startswith("https:") for node in nodes):
            options["ssl_context"] = tls.create_ssl_context(self.security)
            options["ca_fingerprint"] = self.security.ca_fingerprint
        if self.security.authorization is not None:
            options["headers"] = {"authorization": self.security.authorization}
        if self.security.aws_service is not None:
            options["http_auth"] = create_aws_signer(self.security.aws_service, self.security.aws_region)
        return OpenSearch(
            hosts=nodes,
            connection_class=NodeConnection,
            timeout=self.timeout_s,
            http_compress=False,
            pool_maxsize=_POOL,
            max_retries=len(nodes) - 1,
            retry_on_status=(),
            retry_on_timeout=len(nodes) > 1,
            **options,
        )


def create_aws_signer(service: str, region: str | None) -> Any:  # noqa: ANN401  a callable of the client, without a type
    """Create a signer of requests for AWS (SigV4), which uses the same credentials as the AWS tools.

    These are the environment, a profile, or the role of a container or instance. Only `es` and `aoss` have search clusters.
    `region` is None for the configured one.
    """
    session = import_optional("botocore.session", "aws").get_session()
    errors = import_optional("botocore.exceptions", "aws")
    try:
        region = region or session.get_config_variable("region")
        credentials = session.get_credentials()
    except errors.BotoCoreError as error:
        raise UsageError(
            f"the AWS configuration can't be used: {error}",
            "Check AWS_PROFILE and ~/.aws/config.",
            code="invalid-aws-configuration",
        ) from None
    if not region:
        raise UsageError("no AWS region", "Give --aws-region, or set AWS_REGION.", code="no-aws-region")
    if credentials is None:
        raise AuthenticationFailed(
            "no AWS credentials",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run on a machine with an IAM role.",
            code="no-aws-credentials",
        )
    return Urllib3AWSV4SignerAuth(credentials, region, service)
