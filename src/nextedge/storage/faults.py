"""Turn errors of object stores into messages with the object and the remedy."""

from __future__ import annotations

import re

from nextedge.errors import BucketError

_TAG = re.compile(r"<Code>(\w+)</Code>")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, too, where there is one)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
# parts of errors after a request for credentials to the metadata server of a cloud machine
_NO_CREDENTIALS = (
    *("169.254.169.254", "/latest/api/token", "metadata.google.internal", "/oauth2/token"),
    *("No credentials", "MissingToken"),
)
_ENDPOINT = {
    "s3": "AWS_ENDPOINT_URL (http:// also needs AWS_ALLOW_HTTP=true) and AWS_REGION",
    "gs": "the network",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
}


def fault(where: str, what: str, error: Exception) -> BucketError:
    """The error of an object, with a message that names the remedy."""
    scheme = where.partition("://")[0]
    name = type(error).__name__
    if names_no_bucket(error):
        return BucketError(f"{where}: there is no such bucket; create it, or correct its name")
    if _says(error, *_NO_CREDENTIALS):
        return BucketError(
            f"{where}: cannot be {what}: no credentials were found; set {CREDENTIALS.get(scheme)}"
        )
    if name == "UnauthenticatedError" or _says(
        error, "InvalidAccessKeyId", "SignatureDoesNotMatch"
    ):
        return BucketError(
            f"{where}: cannot be {what}: the credentials are refused ({_code(error)}); check "
            f"{CREDENTIALS.get(scheme)}"
        )
    if name == "PermissionDeniedError" or _says(error, "AccessDenied", "403 Forbidden"):
        return BucketError(
            f"{where}: cannot be {what}: access denied ({_code(error)}); let these credentials "
            f"list, read, write and delete there"
        )
    if _says(error, "builder error"):
        return BucketError(
            f"{where}: cannot be {what}: the endpoint is plain HTTP or no URL; check "
            f"{_ENDPOINT.get(scheme)}"
        )
    if _says(error, "error sending request", "dns error", "Connect"):
        return BucketError(
            f"{where}: cannot be {what}: the store is not reached; check {_ENDPOINT.get(scheme)}",
            passing=True,
        )
    passing = _says(error, " 500 ", " 502 ", " 503 ", " 504 ", "429", "body", "timed out")
    return BucketError(
        f"{where}: cannot be {what}: {_code(error)}; try again, or look at the store's own state",
        passing=passing,
    )


def names_no_bucket(error: Exception) -> bool:
    """Whether the bucket is missing, not one object."""
    return _says(error, "NoSuchBucket", "ContainerNotFound", "bucket does not exist")


def _says(error: Exception, *words: str) -> bool:
    text = str(error)
    return any(word in text for word in words)


def _code(error: Exception) -> str:
    """The store's code of an error, its HTTP status, or the first line."""
    text = str(error)
    if tag := _TAG.search(text):
        return tag[1]
    if status := re.search(r"status code: (\d{3} [A-Za-z ]+)", text):
        return status[1].strip()
    return first_line(error)


def first_line(error: Exception) -> str:
    """The first line of an error, without the query of a URL, which may have a signature."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\?\S+", "", line)[:300]
