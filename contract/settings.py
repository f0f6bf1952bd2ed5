"""Every setting, typed and checked once at start; the only reader of the environment."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "EVASCORE_"
# The command line reads it, often from the same shell; no process of the service does.
OF_THE_CLIENT = frozenset({"EVASCORE_URL"})
REPOSITORY = Path(__file__).resolve().parent.parent
DEMO_CHECKPOINT = str(REPOSITORY / "model" / "checkpoints" / "demo")
# What one value may hold (`proto-max-bulk-len`).
MAX_REDIS_VALUE_BYTES = 512 * 1024**2

Port = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class SettingsInvalid(Exception):
    """The environment holds a setting that evascore refuses to start with."""


class Settings(BaseSettings):
    """All settings, with their defaults for development; units are in the names.

    Each is read from the environment variable of its name in capitals behind `EVASCORE_`.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: Name = Field(
        "127.0.0.1", description="Address the web server binds; 0.0.0.0 inside a container."
    )
    port: Port = Field(8000, description="Port the web server binds.")
    redis_url: SecretStr | None = Field(
        None,
        description="Redis of all processes; unset, `make run` starts an embedded one in data_dir.",
    )
    redis_password_file: Path | None = Field(
        None, description="File with the password for redis_url, as container secrets come."
    )
    data_dir: Path = Field(
        Path("data"), description="Folder of the embedded Redis; set it where disk is durable."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged."
    )

    model: Name = Field(
        DEMO_CHECKPOINT, description="Checkpoint folder or Hub name; the bundled demo when unset."
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the model; auto is float32 on CPU, bfloat16 on CUDA."
    )
    kernels: Literal["auto", "triton", "torch"] = Field(
        "auto",
        description="Form of the operations; auto is triton on GPUs of capability 8.0 and newer.",
    )
    quantization: Literal["none", "int8", "nf4"] = Field(
        "none",
        description="Form of the weights; int8 halves and nf4 quarters the memory of bfloat16.",
    )
    reproducible: bool = Field(
        False,
        description="Score every continuation alone, so that its bits depend on no other text.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder of quantized weights for the next start; unset, `cache` in data_dir.",
    )
    scratch_dir: Path | None = Field(
        None,
        description="Fast local disk that takes the place of data_dir for that cache.",
    )
    batch_bytes: Bytes = Field(
        16_384, description="Text bytes of one batch; raise it on a GPU, lower it for latency."
    )
    batch_texts: Count = Field(256, description="Texts of one batch at most.")

    max_text_bytes: Bytes = Field(
        32_767, description="Longest text (with its context); the model's context less one."
    )
    max_windowed_bytes: Bytes = Field(
        1024**2, description="Longest text that is scored in windows."
    )
    max_items: Count = Field(256, description="Most texts in one request.")
    max_continuations: Count = Field(256, description="Most continuations of one context.")
    max_body_bytes: Bytes = Field(8 * 1024**2, description="Largest request body.")
    max_job_bytes: Bytes = Field(
        16 * 1024**2,
        description="Most bytes that one job may have the model read.",
    )
    max_result_bytes: Annotated[int, Field(ge=1, le=MAX_REDIS_VALUE_BYTES)] = Field(
        64 * 1024**2,
        description="Most bytes that the results of a job could take, and those of one batch.",
    )
    max_batch_lines: Count = Field(1_000_000, description="Most lines of one batch.")
    max_batch_bytes: Bytes = Field(
        2 * 1024**3, description="Largest upload of one batch, after decompression."
    )

    max_queued_bytes: Bytes = Field(
        256 * 1024**2, description="Text bytes accepted and not yet scored, above which 503."
    )
    max_queued_jobs: Count = Field(
        100_000, description="Jobs accepted and not yet scored, above which 503."
    )
    max_bulk_bytes: Bytes = Field(
        4 * 1024**3,
        description="Text bytes of batches accepted and not yet scored, above which 503.",
    )
    max_redis_bytes: Bytes = Field(
        4 * 1024**3,
        description="Memory of Redis above which batches get 503; keep it below its maxmemory.",
    )
    max_uploads: Count = Field(4, description="Batches uploaded at once; further ones get 503.")
    max_streams: Count = Field(
        8, description="Event streams open at once, each holding a thread; further ones get 503."
    )

    deadline_s: Seconds = Field(3600, description="Time a job may wait, unless it says otherwise.")
    max_deadline_s: Seconds = Field(21_600, description="Longest deadline a job may ask for.")
    batch_deadline_s: Seconds = Field(
        86_400, description="Time a batch may take, unless it says otherwise, and at most."
    )
    upload_ttl_s: Count = Field(
        120, description="Time after which what a vanished web server was receiving is forgotten."
    )
    result_ttl_s: Count = Field(86_400, description="Time a result stays readable.")
    max_wait_s: Seconds = Field(30, description="Longest a request waits for a result.")
    completion_wait_s: Seconds = Field(
        240,
        description="Longest a completion is held, below what its client waits (300 in lm-eval).",
    )
    web_timeout_s: Count = Field(60, description="Gunicorn ends a silent worker process after it.")
    web_threads: Count = Field(64, description="Requests served at once; a wait holds one.")
    max_waiters: Count = Field(
        48, description="Requests waiting at once; further ones are answered at once."
    )
    redis_timeout_s: Seconds = Field(2, description="A Redis slower than this counts as away.")

    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        "worker", description="Names this worker; two living workers never share a name."
    )
    lease_s: Seconds = Field(5, description="A worker silent for this long has its jobs requeued.")
    batch_timeout_s: Seconds = Field(
        300, description="A batch longer than this counts as hung and its worker is restarted."
    )
    max_crashes: Count = Field(3, description="A job aboard this many dying workers is failed.")
    health_file: Path | None = Field(
        None, description="File that a warm worker touches every few seconds, for health checks."
    )
    drain_s: Seconds = Field(20, description="Time a stopping worker has to end its batch.")

    @field_validator("redis_url")
    @classmethod
    def _redis_url_names_a_server(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return url

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        kind, _, index = device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (
            index and (kind != "cuda" or not index.isdigit())
        ):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return device

    @model_validator(mode="after")
    def _limits_nest(self) -> "Settings":
        for smaller, larger in NESTED:
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(
                    f"{environment_name(smaller)} ({getattr(self, smaller)}) must not exceed "
                    f"{environment_name(larger)} ({getattr(self, larger)})"
                )
        held = self.max_waiters + self.max_uploads + self.max_streams
        if held >= self.web_threads:
            raise ValueError(
                f"EVASCORE_WEB_THREADS ({self.web_threads}) must exceed what may be held for long: "
                f"EVASCORE_MAX_WAITERS + EVASCORE_MAX_UPLOADS + EVASCORE_MAX_STREAMS ({held})"
            )
        return self

    @property
    def bind(self) -> str:
        """Address and port of the web server, an IPv6 address in brackets as in URLs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def model_cache(self) -> Path:
        """Folder in which quantized weights are kept."""
        return self.cache_dir or (self.scratch_dir or self.data_dir) / "cache"

    @property
    def redis(self) -> str:
        """URL of the Redis server that all processes share."""
        if self.redis_url is None:
            return "redis://127.0.0.1:6379/0"
        url = self.redis_url.get_secret_value()
        if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
            return url
        # Celery's broker leaves TLS out unless the URL says what to ask of the certificate.
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


# Each pair: the first must not exceed the second, else a limit could never be met.
NESTED = (
    ("batch_timeout_s", "deadline_s"),
    ("deadline_s", "max_deadline_s"),
    ("max_deadline_s", "result_ttl_s"),
    ("completion_wait_s", "max_deadline_s"),
    ("lease_s", "batch_timeout_s"),
    ("drain_s", "batch_timeout_s"),
    ("redis_timeout_s", "lease_s"),
    ("max_wait_s", "web_timeout_s"),
    ("max_waiters", "web_threads"),
    ("max_text_bytes", "max_windowed_bytes"),
    ("max_uploads", "web_threads"),
    ("max_streams", "web_threads"),
    ("max_text_bytes", "max_body_bytes"),
    ("max_text_bytes", "max_job_bytes"),
    ("max_job_bytes", "max_queued_bytes"),
    ("max_body_bytes", "max_batch_bytes"),
    ("max_batch_bytes", "max_bulk_bytes"),
    ("max_deadline_s", "batch_deadline_s"),
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
    unknown = [name for name in given if name not in Settings.model_fields]
    if unknown:
        raise SettingsInvalid("; ".join(_unknown(name) for name in unknown))
    try:
        # The values come from `given` alone, so that a caller's `environ` is all that counts.
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsInvalid("; ".join(_refusal(e) for e in error.errors())) from None
    if settings.redis_password_file is None:
        return settings
    url = SecretStr(_with_password(settings.redis, settings.redis_password_file))
    return settings.model_copy(update={"redis_url": url})


def environment_name(field: str) -> str:
    """The environment variable that sets `field`."""
    return PREFIX + field.upper()


def _with_password(url: str, file: Path) -> str:
    """`url` with the password that `file` holds."""
    name, parts = environment_name("redis_password_file"), urlsplit(url)
    if not parts.hostname:
        raise SettingsInvalid(f"{name}: {environment_name('redis_url')} must name a host with it")
    try:
        password = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{name}: {file} cannot be read ({type(error).__name__})") from None
    if not password:
        raise SettingsInvalid(f"{name}: {file} is empty")
    address = parts.netloc.rpartition("@")[2]
    netloc = f"{parts.username or ''}:{quote(password, safe='')}@{address}"
    return parts._replace(netloc=netloc).geturl()


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    hint = f"did you mean {environment_name(close[0])}?" if close else "see docs/settings.md"
    return f"{environment_name(name)} is not a setting; {hint}"


def _refusal(error: Mapping[str, object]) -> str:
    where = error["loc"]
    reason = str(error["msg"]).removeprefix("Value error, ")
    if not isinstance(where, tuple) or not where:
        return reason
    return f"{environment_name(str(where[0]))}: {reason}"
