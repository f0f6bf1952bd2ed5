"""Reads and checks all settings; no other module reads environment variables."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from contract.grammar.limits import DEFAULT_LIMITS
from contract.grammar.model_names import NAME_RULE, is_model_name
from contract.hosts import read_host_names, read_origins
from contract.setting_refusals import PREFIX, bad_value, environment_name, unknown_setting

# The command line reads it, often from the same shell; no process of the service does.
OF_THE_CLIENT = frozenset({"EVASCORE_URL", "EVASCORE_API_KEY"})
# The Unix socket of the Redis that `make run` starts, in its data folder.
REDIS_SOCKET = "redis.sock"
REPOSITORY = Path(__file__).resolve().parent.parent
DEMO_CHECKPOINT = str(REPOSITORY / "model" / "checkpoints" / "demo")
# Redis stores no larger value (`proto-max-bulk-len`).
MAX_REDIS_VALUE_BYTES = 512 * 1024**2

# A commit, or what git calls a reference.
REVISION = r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$"
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
Port = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Network = IPv4Network | IPv6Network


class SettingsInvalid(Exception):
    """The environment holds a setting that evascore refuses to start with."""


class Settings(BaseModel):
    """All settings, with their defaults for development; units are in the names.

    Each is read from the environment variable of its name in capitals, with the prefix `EVASCORE_`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Name = Field(
        "127.0.0.1",
        description="Address that the web server listens on; use 0.0.0.0 in a container.",
    )
    port: Port = Field(8000, description="Port that the web server listens on.")
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks of proxies, separated by commas, such as "
        "`10.0.0.0/8,fd00::1`. Their `X-Forwarded-For` names the client; without it, the client "
        "is the address that connects.",
    )
    auth: Literal["off", "keys"] = Field(
        "off",
        description="`keys`: requests need an API key, see docs/security.md. "
        "`off`: anyone who reaches the port may do everything.",
    )
    allow_open: bool = Field(
        False,
        description="Accept `EVASCORE_AUTH=off` on an address that is not loopback, "
        "because a proxy or a network keeps strangers out.",
    )
    keys_file: Path | None = Field(
        None,
        description="File of API keys beside those in Redis, such as a mounted secret; "
        "one entry per line, as `python -m app.keys create --entry` prints it.",
    )
    allowed_hosts: str | None = Field(
        None,
        description="Host names that the web server answers to, separated by commas, "
        "such as `scores.example.org,*.example.net`. `localhost` and IP addresses always work.",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose web pages may use the API, separated by commas, "
        "such as `https://app.example.org`.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="URL of the Redis that all processes share. "
        "Without it, `make run` starts a Redis of its own in `EVASCORE_DATA_DIR`, "
        "and all commands find it there.",
    )
    redis_password_file: Path | None = Field(
        None,
        description="File that holds the password of Redis, such as a container's secret.",
    )
    data_dir: Path = Field(
        Path("data"),
        description="Folder for the data of the Redis that `make run` starts; use a durable disk.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level of the log lines that are written."
    )
    traces_url: str | None = Field(
        None,
        description="Address of an OpenTelemetry collector that takes OTLP over HTTP, such as "
        "`http://127.0.0.1:4318/v1/traces`. Spans of requests, jobs and micro-batches go there; "
        "needs the packages of `requirements-otel.lock`.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="What `make run` writes: `json` lines for programs, `text` for people. "
        "`auto` is `text` on a terminal, else `json`.",
    )

    model: Name = Field(
        DEMO_CHECKPOINT, description="Checkpoint folder, or a name on the Hugging Face Hub."
    )
    model_name: Name | None = Field(
        None,
        description="Name by which requests ask for the model; by default the name of its folder "
        "or on the Hub. Workers of one name serve one model.",
    )
    model_revision: str | None = Field(
        None,
        pattern=REVISION,
        description="Commit, tag or branch of a checkpoint on the Hub. "
        "By default the commit that was loaded first, whatever is pushed later.",
    )
    device: str = Field(
        "auto",
        description="`auto`, `cpu`, `cuda` or `cuda:N`. "
        "`auto` is the first GPU, or the CPU where PyTorch can use none. "
        "With `cuda`, a worker that cannot use a GPU ends.",
    )
    devices: str | None = Field(
        None,
        description="Devices of `make run`, separated by commas, such as `cuda:0,cuda:1`. "
        "Each gets a worker of its own; `EVASCORE_DEVICE` does not apply.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the model; `auto` is float32 on a CPU and bfloat16 on a GPU.",
    )
    kernels: Literal["auto", "triton", "torch"] = Field(
        "auto",
        description="Implementation of the operations. "
        "`auto` is `triton` on GPUs of compute capability 8.0 or newer, else `torch`.",
    )
    quantization: Literal["none", "int8", "nf4", "fp8"] = Field(
        "none",
        description="Number format of the weights. "
        "int8 and fp8 need half the memory of bfloat16, nf4 a quarter. "
        "fp8 needs a GPU of compute capability 8.9 or 9.0.",
    )
    reproducible: bool = Field(
        False,
        description="Score every continuation in a pass of its own. "
        "Its score then has the same bits whatever else is scored. "
        "On a GPU with Triton, products have one tile for any number of rows.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder that keeps quantized weights for the next start; "
        "by default `cache` in `EVASCORE_DATA_DIR`. Choose a local disk.",
    )
    micro_batch_bytes: Bytes = Field(
        16_384,
        description="Most text bytes of one micro-batch. Raise it on a fast GPU.",
    )
    micro_batch_texts: Count = Field(256, description="Most texts of one micro-batch.")
    micro_batch_s: Seconds = Field(
        1,
        description="Target time of one micro-batch: a worker takes fewer bytes, at least 512, if "
        "the last ones took longer. Lower it for shorter waits; raise it for more throughput on a "
        "GPU.",
    )

    max_text_bytes: Bytes = Field(
        DEFAULT_LIMITS.max_text_bytes,
        description="Longest text, its context included; the longest window of a longer text.",
    )
    max_windowed_bytes: Bytes = Field(
        DEFAULT_LIMITS.max_windowed_bytes,
        description="Longest text that is scored in sliding windows.",
    )
    max_items: Count = Field(
        DEFAULT_LIMITS.max_continuations,
        description="Most texts of one request, and most continuations of one context.",
    )
    max_body_bytes: Bytes = Field(
        DEFAULT_LIMITS.max_body_bytes,
        description="Largest request body, and longest line of a batch.",
    )
    max_job_bytes: Bytes = Field(
        DEFAULT_LIMITS.max_job_bytes,
        description="Most bytes that the model reads for one job; overlapping windows count fully.",
    )
    max_result_bytes: Annotated[int, Field(ge=1, le=MAX_REDIS_VALUE_BYTES)] = Field(
        DEFAULT_LIMITS.max_result_bytes,
        description="Largest result of one job, and of one micro-batch; "
        "estimated from the request before it is scored.",
    )
    max_upload_lines: Count = Field(1_000_000, description="Most lines of one batch.")
    max_upload_errors: Count = Field(
        10_000,
        description="Most bad lines of one batch; with more of them it is refused as a whole.",
    )
    max_upload_bytes: Bytes = Field(
        2 * 1024**3, description="Largest upload of one batch, before and after decompression."
    )

    max_queued_bytes: Bytes = Field(
        256 * 1024**2,
        description="Most text bytes of jobs that are not scored yet; above it, 503. "
        "A job is refused if its client would then hold more than is free. "
        "So a client that is alone can fill half.",
    )
    max_queued_jobs: Count = Field(
        100_000,
        description="Most jobs that are not scored yet; above it, 503. "
        "A job is refused if its client would then have more than are free. "
        "So a client that is alone can fill half.",
    )
    max_bulk_bytes: Bytes = Field(
        4 * 1024**3,
        description="Most text bytes of batches that are not scored yet, "
        "at least 64 for each line; above it, 503. "
        "A batch is refused if its client would then hold more than is free. "
        "So a client that is alone can fill half.",
    )
    max_queued_batches: Count = Field(
        10_000,
        description="Most batches that have not ended; above it, 503. "
        "A batch is refused if its client would then have more than are free. "
        "So a client that is alone can fill half.",
    )
    max_redis_bytes: Bytes = Field(
        4 * 1024**3,
        description="Most memory of Redis, with the room that is promised to results; above it, "
        "503. Nine tenths of the `maxmemory` of Redis count if that is less.",
    )

    deadline_s: Seconds = Field(
        3600,
        description="Time within which a job must be scored, unless its request sets `deadline_s`.",
    )
    max_deadline_s: Seconds = Field(
        21_600, description="Longest `deadline_s` that a request may ask for."
    )
    max_upload_deadline_s: Seconds = Field(
        86_400,
        description="Time within which a batch must be scored; a batch may ask for less.",
    )
    result_ttl_s: Count = Field(86_400, description="Time that a result can be read.")
    forget_s: Seconds = Field(
        3600,
        description="Time after which no file of Redis holds the texts and results of a job that "
        "has ended, was erased or has expired. See docs/privacy.md.",
    )
    max_wait_s: Seconds = Field(30, description="Longest time that a request waits for a result.")
    completion_wait_s: Seconds = Field(
        240,
        description="Longest time that `/v1/completions` waits for a result. "
        "Keep it below the client's timeout (300 s in lm-eval).",
    )
    web_timeout_s: Count = Field(
        60,
        description="A connection without progress is closed after this time, "
        "and a web process that hangs is restarted.",
    )
    web_connections: Annotated[int, Field(ge=16)] = Field(
        4096,
        description="Connections of one web process. Half of them may wait for results, a quarter "
        "may stream events, and one in 512, but at least 2, may upload batches. One client gets at "
        "most half of each.",
    )
    keepalive_s: Seconds = Field(
        75,
        description="An idle connection of a client is closed after this time, or earlier if "
        "connections run short. A load balancer in front must close idle ones before this time.",
    )
    redis_timeout_s: Seconds = Field(
        2, description="A Redis that does not answer within this time counts as unavailable."
    )

    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        "worker",
        description="Name of this worker, before `@` and the host. "
        "`-n` on Celery's command line takes precedence. Two running workers never share a name.",
    )
    lease_s: Seconds = Field(
        5,
        description="A worker that is silent for this long counts as dead; its jobs are requeued.",
    )
    micro_batch_timeout_s: Seconds = Field(
        300,
        description="A worker whose micro-batch makes no progress for this long is restarted.",
    )
    max_crashes: Count = Field(
        3,
        description="A job that was being scored when this many workers died, at least once "
        "alone, fails as `poison_job`.",
    )
    health_file: Path | None = Field(
        None,
        description="File that a ready worker touches every few seconds, for health checks.",
    )
    drain_s: Seconds = Field(
        20, description="Time that a process has to finish its work once it gets SIGTERM."
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_url_names_a_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise ValueError(
                "must start with redis://, rediss:// or unix://, as redis://127.0.0.1:6379/0"
            )
        if url is not None and not _is_url(url.get_secret_value()):
            raise ValueError("is not a URL; check its host and port")
        return url

    @field_validator("traces_url")
    @classmethod
    def _traces_go_to_http(cls, url: str | None) -> str | None:
        if url is not None and not (url.startswith(("http://", "https://")) and _is_url(url)):
            raise ValueError(
                "must be a URL with http:// or https://, as http://127.0.0.1:4318/v1/traces"
            )
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, proxies: str | None) -> str | None:
        for each in _listed(proxies):
            try:
                ip_network(each)
            except ValueError:
                raise ValueError(
                    f"must list addresses or networks with commas, as 10.0.0.0/8, not {each!r}"
                ) from None
        return proxies

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_names(cls, listed: str | None) -> str | None:
        if listed is not None:
            read_host_names(listed)
        return listed

    @field_validator("cors_origins")
    @classmethod
    def _origins_have_no_path(cls, listed: str | None) -> str | None:
        if listed is not None:
            read_origins(listed)
        return listed

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if not _DEVICE.fullmatch(device):
            raise ValueError(f"must be auto, cpu, cuda or cuda:N, not {device!r}")
        return device

    @field_validator("devices")
    @classmethod
    def _devices_are_known(cls, devices: str | None) -> str | None:
        if devices is None:
            return None
        listed = [device.strip() for device in devices.split(",")]
        for device in listed:
            if device == "auto" or not _DEVICE.fullmatch(device):
                raise ValueError(f"must list cpu, cuda or cuda:N with commas, not {device!r}")
            if device != "cpu" and listed.count(device) > 1:
                raise ValueError(f"names {device} twice; one worker fills a GPU")
        return devices

    @model_validator(mode="after")
    def _open_service_is_meant(self) -> "Settings":
        if self.auth == "off" and not self.allow_open and not _is_loopback(self.host):
            raise ValueError(
                f"{environment_name('host')} ({self.host}) can be reached from other machines, and "
                f"{environment_name('auth')} is off; set {environment_name('auth')}=keys, or "
                f"{environment_name('allow_open')}=1 if a proxy or a network keeps strangers out"
            )
        return self

    @model_validator(mode="after")
    def _limits_nest(self) -> "Settings":
        for smaller, larger in NESTED:
            low, high = getattr(self, smaller), getattr(self, larger)
            if low > high:
                raise ValueError(
                    f"{environment_name(smaller)} ({low}) must not exceed "
                    f"{environment_name(larger)} ({high}); lower the first or raise the second"
                )
        return self

    @model_validator(mode="after")
    def _model_has_a_name(self) -> "Settings":
        if not is_model_name(self.served_name):
            given = "model" if self.model_name is None else "model_name"
            raise ValueError(
                f"{environment_name(given)} gives the model the name {self.served_name[:60]!r}; "
                f"set {environment_name('model_name')} to {NAME_RULE}"
            )
        return self

    @cached_property
    def served_name(self) -> str:
        """The name of the model that this worker serves, and that requests get by default."""
        if self.model_name is not None:
            return self.model_name
        folder = Path(self.model)
        # A web server need not have the folder of its workers.
        is_on_hub = is_model_name(self.model) and "/" in self.model and not folder.is_dir()
        return self.model if is_on_hub else folder.resolve().name

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The device of each worker that `make run` starts."""
        if self.devices is None:
            return (self.device,)
        return tuple(device.strip() for device in self.devices.split(","))

    @cached_property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The networks of the proxies whose word counts for who the client is."""
        return tuple(map(ip_network, _listed(self.trusted_proxies)))

    @property
    def bind(self) -> str:
        """Address and port of the web server, an IPv6 address in brackets as in URLs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def allowed_host_names(self) -> tuple[str, ...]:
        """Host names and patterns that the web server answers to besides the loopback names."""
        return read_host_names(self.allowed_hosts) if self.allowed_hosts else ()

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Origins of other sites whose pages may use the API."""
        return read_origins(self.cors_origins) if self.cors_origins else frozenset()

    @property
    def model_cache(self) -> Path:
        """Folder in which quantized weights are kept."""
        return self.cache_dir or self.data_dir / "cache"

    @property
    def max_continuations(self) -> int:
        """Most continuations of one context."""
        return self.max_items

    @property
    def max_streams(self) -> int:
        """Event streams open at once; further ones get 503."""
        return self.web_connections // 4

    @property
    def max_uploads(self) -> int:
        """Batches uploaded at once; further ones get 503."""
        return max(2, self.web_connections // 512)

    @property
    def max_waiters(self) -> int:
        """Requests that wait at once for a result; further ones are answered at once."""
        return self.web_connections // 2

    @property
    def max_bodies_bytes(self) -> int:
        """Memory of request bodies that are read or checked at once; further ones get 503.

        As much again is for answers that wait to be sent.
        """
        return 16 * self.max_body_bytes

    @property
    def upload_ttl_s(self) -> int:
        """Time after which an upload that its web process left unfinished is deleted.

        Longer than an upload may stall.
        """
        return 2 * self.web_timeout_s

    @property
    def redis(self) -> str:
        """URL of the Redis server that all processes share; by default that of `make run`."""
        if self.redis_url is None:
            # Where the data folder cannot hold a socket, this is a symbolic link to it.
            return f"unix://{quote(os.path.realpath(self.data_dir / REDIS_SOCKET))}?db=0"
        url = self.redis_url.get_secret_value()
        if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
            return url
        # Celery's broker leaves TLS out unless the URL says what to ask of the certificate.
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


# The first of each pair must not exceed the second, or one limit makes the other unreachable.
NESTED = (
    ("micro_batch_s", "micro_batch_timeout_s"),
    ("micro_batch_timeout_s", "deadline_s"),
    ("deadline_s", "max_deadline_s"),
    ("max_deadline_s", "result_ttl_s"),
    ("completion_wait_s", "max_deadline_s"),
    ("lease_s", "micro_batch_timeout_s"),
    ("drain_s", "micro_batch_timeout_s"),
    ("redis_timeout_s", "lease_s"),
    ("max_wait_s", "web_timeout_s"),
    ("max_text_bytes", "max_windowed_bytes"),
    ("max_text_bytes", "max_body_bytes"),
    ("max_text_bytes", "max_job_bytes"),
    ("max_job_bytes", "max_queued_bytes"),
    ("max_body_bytes", "max_upload_bytes"),
    ("max_upload_bytes", "max_bulk_bytes"),
    ("max_deadline_s", "max_upload_deadline_s"),
)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the settings of this process.

    Args:
        environ: the variables to read; those of the process when None.

    Raises:
        SettingsInvalid: one line that names every unknown name and every bad value, or the
            password file that cannot be used.
    """
    found = os.environ if environ is None else environ
    given = {
        name[len(PREFIX) :].lower(): value
        for name, value in found.items()
        if name.upper().startswith(PREFIX) and name.upper() not in OF_THE_CLIENT
    }
    known = Settings.model_fields
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SettingsInvalid("; ".join(unknown_setting(name, known) for name in unknown))
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsInvalid("; ".join(bad_value(e, known) for e in error.errors())) from None
    if settings.redis_password_file is None:
        return settings
    url = SecretStr(_with_password(settings.redis, settings.redis_password_file))
    return settings.model_copy(update={"redis_url": url})


def _listed(text: str | None) -> list[str]:
    """The entries of a list with commas."""
    return [entry.strip() for entry in (text or "").split(",") if entry.strip()]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_url(text: str) -> bool:
    try:
        # Reading the port checks it.
        return urlsplit(text).port != 0
    except ValueError:
        return False


def _with_password(url: str, file: Path) -> str:
    """`url` with the password that `file` holds."""
    name, parts = environment_name("redis_password_file"), urlsplit(url)
    if not parts.hostname:
        raise SettingsInvalid(
            f"{name}: {environment_name('redis_url')} must name the host that the password is for"
        )
    try:
        password = file.read_text().strip()
    except OSError as error:
        raise SettingsInvalid(
            f"{name}: {file} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{name}: {file} is not UTF-8 text; save it as UTF-8") from None
    if not password:
        raise SettingsInvalid(f"{name}: {file} is empty; write the password into it")
    address = parts.netloc.rpartition("@")[2]
    netloc = f"{parts.username or ''}:{quote(password, safe='')}@{address}"
    return parts._replace(netloc=netloc).geturl()
