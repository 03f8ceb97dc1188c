"""Requests signed for AWS (SigV4). Only `es` and `aoss` have search clusters."""

from __future__ import annotations

from typing import Any

from opensearchpy import Urllib3AWSV4SignerAuth

from stair_es.errors import AuthenticationFailed, UsageError
from stair_es.extras import need


def signer(service: str, region: str | None) -> Any:  # noqa: ANN401  a callable of the client, without a type
    """Signs each request with the credentials that AWS tools would use: environment, profile, container or instance role.

    Raises:
        MissingExtra: The extra `aws` isn't installed.
        UsageError: No region is given or configured, or the named profile isn't there.
        AuthenticationFailed: There are no credentials.
    """
    session = need("botocore.session", "aws").get_session()
    errors = need("botocore.exceptions", "aws")
    try:
        region = region or session.get_config_variable("region")
        credentials = session.get_credentials()
    except errors.BotoCoreError as error:
        raise UsageError(f"the AWS configuration can't be used: {error}", "Check AWS_PROFILE and ~/.aws/config.") from None
    if not region:
        raise UsageError("no AWS region", "Give --aws-region, or set AWS_REGION.")
    if credentials is None:
        raise AuthenticationFailed(
            "no AWS credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role."
        )
    return Urllib3AWSV4SignerAuth(credentials, region, service)
