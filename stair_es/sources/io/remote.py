"""Object stores and other remote file systems through fsspec: opening, names, versions, error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from stair_es.errors import MissingExtra, ReadError, UsageError
from stair_es.optional import format_install_command, import_optional
from stair_es.sources.http.urls import normalize_url, redact_web_url
from stair_es.sources.io.uris import build_version_stamp, format_modification_time, get_scheme

_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
    "hf": "hf",
}
_SERVERS = ("ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs", "webdav")
"""Their file systems omit the host from names."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()]+")
"""URLs in error messages of libraries: some include the whole URL with login and signature, or a signed redirect."""
_PASSWORD = re.compile(r"^([^:@/]*):[^@/]*@")
_VERSIONS = ("ETag", "etag", "e_tag", "md5", "md5Hash", "generation", "blob_id", "checksum")
_MODIFIED = ("LastModified", "last_modified", "mtime", "modified")
_TIMES = (*_MODIFIED, "updated", "created")


def strip_credentials(url: str) -> str:
    """Return the URL for documents and messages: without the password, or for web URLs without user and signature."""
    scheme = get_scheme(url)
    if scheme in ("http", "https"):
        return normalize_url(url)
    if "@" not in urlsplit(url.replace("#", "%23").replace("?", "%3F")).netloc:
        return url  # urlsplit is only used to check: object names stay unchanged
    return f"{scheme}://" + _PASSWORD.sub(r"\1@", url[len(scheme) + 3 :])


def strip_all_credentials(value: Any) -> Any:  # noqa: ANN401  whatever JSON and TOML have
    """Return a value with the URLs within it as `strip_credentials` returns them."""
    if isinstance(value, dict):
        return {name: strip_all_credentials(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [strip_all_credentials(each) for each in value]
    return strip_credentials(value) if isinstance(value, str) and "://" in value else value


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and its path there. fsspec caches file systems per process."""
    scheme = get_scheme(url)
    fsspec = import_optional("fsspec", _EXTRAS.get(scheme, "s3"))
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        remedy = f"Install it with: {format_install_command(_EXTRAS[scheme])}" if scheme in _EXTRAS else str(error)
        raise MissingExtra(f"the library for {scheme}:// isn't installed", remedy) from None
    except ValueError:
        raise UsageError(
            f"no library supports the scheme {scheme}:// of {strip_credentials(url)!r}",
            "See docs/sources.md for the list.",
            code="unknown-store-scheme",
        ) from None
    options = {**kind._get_kwargs_from_urls(url), "use_listings_cache": False}  # a cache would grow with the number of objects
    return fsspec.filesystem(scheme, **options), kind._strip_protocol(url)


def has_no_bucket(url: str) -> bool:
    """Return whether it is a store URL without a bucket or container."""
    return get_scheme(url) in _EXTRAS and not url.partition("://")[2].strip("/")


def build_object_url(base: str, path: str) -> str:
    """Return the URL of `path` in the file system of `base`."""
    scheme = get_scheme(base)
    if get_scheme(path):
        return path
    parts = urlsplit(base)
    if scheme in _SERVERS:
        return urlunsplit((scheme, parts.netloc, "", "", "")) + "/" + path.lstrip("/")
    if scheme in ("abfs", "abfss") and "@" in parts.netloc:
        return f"{scheme}://{parts.netloc}/{path.partition('/')[2]}"
    return f"{scheme}://{path.lstrip('/')}"


def get_object_version(info: Mapping[str, Any]) -> str | None:
    """Return the version that the store reports: an ETag or checksum, else size and modification time."""
    for key in _VERSIONS:
        if info.get(key):
            return str(info[key]).strip('"')
    modified = next((info[key] for key in _TIMES if info.get(key)), None)
    size = info.get("size")
    if modified is None or size is None:
        return None
    if isinstance(modified, datetime):
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
    if not isinstance(modified, (int, float)):
        return f"{size}-{modified}"
    return build_version_stamp(int(size), int(float(modified) * 1e9))


def get_modification_time(info: Mapping[str, Any]) -> str | None:
    """Return when the object was last modified, as reported by the store; None if unknown."""
    times = (info.get(key) for key in _MODIFIED)
    return next((format_modification_time(time) for time in times if isinstance(time, (datetime, int, float))), None)


RERUN_REMEDY = "Run again once it can be read: images already ingested are not read again."


def describe_store_error(error: BaseException) -> str:
    """Return why a store failed, in one line, without credentials."""
    name = type(error).__name__
    text = _URL.sub(lambda url: redact_web_url(url[0]), str(error).strip().partition("\n")[0])[:300]
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, PermissionError):
        return f"access denied ({text or name})"
    if "Credentials" in name:
        return f"no credentials ({text or name})"
    return f"{name}: {text}" if text else name


@contextmanager
def translate_store_errors() -> Iterator[None]:
    """Translate any error of a file system to a `ReadError` with its reason."""
    try:
        yield
    except (ReadError, MissingExtra, UsageError):
        raise
    except Exception as error:
        raise ReadError(f"can't be read: {describe_store_error(error)}", code="object-unreadable") from error
