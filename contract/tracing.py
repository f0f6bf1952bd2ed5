"""Starts the traces of a process, if EVASCORE_TRACES_URL names a collector."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contract.otel import Tracing

# Those of requirements-otel.txt.
_PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


class TracingUnavailable(Exception):
    """The packages that send traces are not installed."""


def check_tracing(url: str | None) -> None:
    """Check that spans can be sent to `url`, without importing anything.

    Raises:
        TracingUnavailable
    """
    for package in _PACKAGES if url is not None else ():
        try:
            version(package)
        except PackageNotFoundError:
            raise TracingUnavailable(
                f"EVASCORE_TRACES_URL needs the package {package}; "
                "install requirements-otel.lock, or unset the setting"
            ) from None


def start_tracing(url: str | None, process: str) -> "Tracing | None":
    """Return what makes the spans of `process`; None without `url`, which costs nothing.

    Raises:
        TracingUnavailable
    """
    check_tracing(url)
    if url is None:
        return None
    # Its packages are an extra, and need a tenth of a second.
    tracing: Tracing = importlib.import_module("contract.otel").Tracing.sending_to(url, process)
    return tracing
