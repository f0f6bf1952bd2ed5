"""Dockerfiles, Compose files and redis.conf agree with the settings and keep their rules."""

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.factory import create_app
from app.openapi.document import describe
from app.requests.body import BODY_S
from app.requests.file_upload import FORM_BYTES
from app.requests.openai_batch import MAX_BODY_BYTES as MAX_OPENAI_BATCH_BYTES
from app.responses.problems import STATUS_BY_CODE
from app.server.header_timeout import HEADER_S
from app.service.components import EXTENSION
from contract import __version__
from contract.setting_refusals import environment_name
from contract.settings import REPOSITORY, Settings, load_settings
from contract.store.admission.memory import memory_of
from deploy.embedded_redis import memory_limit, server_command
from deploy.run import EXIT_S, worker_command

UNITS = {"s": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
HADOLINT = Path(sys.executable).with_name("hadolint")
DOCKERFILES = ("Dockerfile.web", "Dockerfile.worker", "deploy/redis/Dockerfile")


class ComposeLoader(yaml.SafeLoader):
    """Reads Compose's own tags as what they stand before."""


for tag in ("!reset", "!override"):
    ComposeLoader.add_constructor(
        tag, lambda loader, node: loader.construct_sequence(node, deep=True)
    )


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    """A Compose file, with its anchors resolved."""
    # A safe loader of our own.
    return yaml.load((REPOSITORY / name).read_text(), ComposeLoader)


def redis_conf() -> dict[str, str]:
    """The directives of redis.conf."""
    lines = (REPOSITORY / "redis.conf").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def amount(written: str) -> int:
    """A number with a unit, such as 30s or 2gb."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", written).groups()
    return int(number) * UNITS[unit]


SERVICES = compose()["services"]
DOCUMENT = (REPOSITORY / "docs/docker.md").read_text()
# The table of what nginx says of itself.
EDGE_CODES = DOCUMENT.partition("## Profiles")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", SERVICES)
def test_service_may_do_no_more_than_it_must(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "restore" else "unless-stopped")
    assert service["pids_limit"]
    assert re.fullmatch(r"\d+[gm]|\$\{\w+:-\d+g\}", service["mem_limit"])


@pytest.mark.parametrize("name", ["web", "worker"])
def test_stopping_outlasts_the_drain(name):
    grace_s = amount(SERVICES[name]["stop_grace_period"])
    assert grace_s >= load_settings({}).drain_s + EXIT_S


@pytest.mark.parametrize("name", ["web", "worker"])
def test_service_waits_for_redis(name):
    assert SERVICES[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_redis_is_reached_by_our_services_alone():
    assert "ports" not in SERVICES["redis"]
    assert SERVICES["redis"]["networks"] == ["queue"]
    assert compose()["networks"]["queue"] == {"internal": True}


def test_only_the_edge_is_published_beyond_this_machine():
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published.pop("edge") == [
        "${EDGE_HTTP_PORT:-80}:8080",
        "${EDGE_HTTPS_PORT:-443}:8443",
    ]
    for ports in published.values():
        assert all(port.startswith(("127.0.0.1:", "${WEB_HOST:-127.0.0.1}:")) for port in ports)


def test_port_leads_to_the_web_server():
    (port,) = SERVICES["web"]["ports"]
    assert port == "${WEB_HOST:-127.0.0.1}:${WEB_PORT:-8000}:8000"
    assert SERVICES["web"]["environment"]["EVASCORE_PORT"] == "8000"
    assert "EXPOSE 8000" in (REPOSITORY / "Dockerfile.web").read_text()


def test_settings_of_the_containers_are_settings():
    given = [name for s in SERVICES.values() for name in s.get("environment", {})]
    for name in (*DOCKERFILES, ".env.example"):
        given += re.findall(r"\b(EVASCORE_[A-Z_]+)=", (REPOSITORY / name).read_text())
    ours = {name for name in given if name.startswith("EVASCORE_")}
    assert ours
    assert ours <= {environment_name(field) for field in Settings.model_fields}


def test_variables_of_the_compose_files_are_in_the_example():
    example = (REPOSITORY / ".env.example").read_text()
    for name in ("docker-compose.yml", "compose.cpu.yml"):
        used = set(re.findall(r"\$\{([A-Z_]+)", (REPOSITORY / name).read_text()))
        assert used <= set(re.findall(r"^#?([A-Z_]+)=", example, flags=re.MULTILINE))


def test_gpu_is_reserved_unless_taken_away():
    (gpu,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert gpu == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    without = compose("compose.cpu.yml")["services"]["worker"]
    assert without["deploy"]["resources"]["reservations"]["devices"] == []


def test_worker_uses_the_cpu_only_where_the_gpu_is_taken_away():
    assert SERVICES["worker"]["environment"]["EVASCORE_DEVICE"] == "${EVASCORE_DEVICE:-cuda}"
    without = compose("compose.cpu.yml")["services"]["worker"]
    assert without["environment"] == {"EVASCORE_DEVICE": "cpu"}
    for service in compose("compose.gpus.yml")["services"].values():
        assert "environment" not in service


def test_each_gpu_has_a_worker_of_its_own():
    services = compose("compose.gpus.yml")["services"]
    document = DOCUMENT.partition("### Several GPUs")[2].partition("\n#")[0]
    (files,) = re.findall(r"^COMPOSE_FILE=(.*)$", document, re.MULTILINE)
    assert files.split(":") == ["docker-compose.yml", "compose.gpus.yml"]
    assert f"#COMPOSE_FILE={files}\n" in (REPOSITORY / ".env.example").read_text()
    ids = []
    for name, service in services.items():
        (gpu,) = service["deploy"]["resources"]["reservations"]["devices"]
        ids += gpu["device_ids"]
        assert name == "worker" or service["extends"]["service"] == "worker"
    assert ids == [str(number) for number in range(8)]
    for count in (2, 4, 8):
        of_count = [s for s in services.values() if f"gpus-{count}" in s.get("profiles", ())]
        assert len(of_count) == count - 1


def test_worker_container_runs_the_worker_as_make_run_does():
    dockerfile = (REPOSITORY / "Dockerfile.worker").read_text()
    command = json.loads(
        re.search(r"^CMD (\[.*?\])", dockerfile, re.M | re.S)[1].replace("\\\n", "")
    )
    _python, _m, *as_here = worker_command()
    assert command == as_here


def test_redis_loads_its_file_with_all_rights():
    # As the default user; Redis 7.0 skips transactions that this user may not end.
    start = (REPOSITORY / "deploy/redis/start.sh").read_text()
    assert "user default off resetpass ~* &* +@all\n" in start


@pytest.mark.parametrize(
    "name", [*DOCKERFILES, "deploy/backup/Dockerfile", ".devcontainer/Dockerfile"]
)
def test_dockerfile_is_clean_by_hadolint(name):
    command = [HADOLINT, "--failure-threshold", "warning", name]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_runs_without_root_and_tells_what_it_is(name):
    dockerfile = (REPOSITORY / name).read_text()
    (user,) = re.findall(r"^USER (\S+)", dockerfile, re.M)
    assert user in ("10001:10001", "redis")
    assert "HEALTHCHECK" in dockerfile
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in dockerfile
    assert "# syntax" not in dockerfile
    assert re.findall(r"^ARG VERSION=(.*)", dockerfile, re.M) in ([], [__version__])


@pytest.mark.parametrize("name", DOCKERFILES[:2])
def test_packages_lie_below_the_code(name):
    dockerfile = (REPOSITORY / name).read_text()
    assert dockerfile.index("pip install") < dockerfile.index("COPY contract")
    assert "--no-deps --require-hashes" in dockerfile


def test_only_the_demo_weights_reach_a_build():
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert rules.index("model/checkpoints/*") < rules.index("!model/checkpoints/demo")
    assert ".git" not in " ".join(rules)


def test_every_directive_of_redis_has_its_reason():
    lines = (REPOSITORY / "redis.conf").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert before, f"no comment and no directive above: {line}"


def test_redis_keeps_every_job_as_the_embedded_one_does():
    conf = redis_conf()
    words = iter(server_command(data_dir=REPOSITORY)[1:])
    embedded = {word.removeprefix("--"): next(words) for word in words}
    same = ("appendonly", "appendfsync", "maxmemory-policy", "hz", "slowlog-log-slower-than")
    for name in (*same, "slowlog-max-len"):
        assert conf[name] == embedded[name]
    assert shlex.split(conf["save"]) == [embedded["save"]]


def test_no_container_writes_core_dumps():
    assert {name for name, service in SERVICES.items() if service["ulimits"]["core"] != 0} == set()


def test_redis_has_room_for_the_queue_and_its_results():
    assert amount(redis_conf()["maxmemory"]) >= 8 * load_settings({}).max_queued_bytes


def test_redis_of_make_run_has_the_memory_that_admission_counts_on(monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * 1024**3 // 4096}
    monkeypatch.setattr("os.sysconf", pages.get)
    settings = load_settings({})
    maxmemory = memory_limit(settings)
    info = {"used_memory": 0, "maxmemory": maxmemory}
    assert memory_of(info, settings).limit_bytes == settings.max_redis_bytes
    assert maxmemory < 1.2 * settings.max_redis_bytes
    words = server_command(data_dir=REPOSITORY, maxmemory_bytes=maxmemory)
    assert words[words.index("--maxmemory") + 1] == str(maxmemory)
    pages["SC_PHYS_PAGES"] = 2 * 1024**3 // 4096
    assert memory_limit(settings) == 1024**3


def test_redis_may_grow_by_half_over_its_maxmemory_on_kubernetes():
    """A rewrite of the append-only file copies what changes meanwhile, and endings go over it."""
    path = REPOSITORY / "deploy/kubernetes/base/redis.yaml"
    (redis,) = (
        document
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == "StatefulSet"
    )
    memory = redis["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    limit_bytes = int(memory.removesuffix("Gi")) * 1024**3
    assert limit_bytes >= 1.5 * amount(redis_conf()["maxmemory"])


def test_redis_may_use_twice_its_data_before_docker_ends_it():
    limit = re.search(r":-(\w+)}", SERVICES["redis"]["mem_limit"])[1]
    assert amount(f"{limit}b") >= 2 * amount(redis_conf()["maxmemory"])


def test_copies_of_a_backup_are_on_a_disk_and_not_in_the_memory_of_its_container():
    service = SERVICES["backup"]
    scratch = service["environment"]["TMPDIR"]
    volumes = dict(volume.split(":")[1::-1] for volume in service["volumes"])
    assert volumes[scratch] in compose()["volumes"]
    in_memory = [mount.partition(":")[0] for mount in service["tmpfs"]]
    assert not [mount for mount in in_memory if f"{scratch}/".startswith(f"{mount}/")]


def test_redis_listens_where_the_services_call():
    url = SERVICES["web"]["environment"]["EVASCORE_REDIS_URL"]
    assert url == SERVICES["worker"]["environment"]["EVASCORE_REDIS_URL"]
    assert url == f"redis://evascore@redis:{redis_conf()['port']}/0"
    # A connection that waits, for work or for a job's end, is idle for as long as it takes.
    assert redis_conf()["timeout"] == "0"


def routes_with_a_body(settings: Settings) -> set[str]:
    """The routes of the web server to which something is sent."""
    app = create_app(settings)
    app.extensions[EXTENSION].changes.close()
    paths = describe(app, settings)["paths"]
    return {path for path, methods in paths.items() if "requestBody" in methods.get("post", {})}


def test_edge_lets_pass_what_the_web_server_takes():
    conf = (REPOSITORY / "deploy/nginx/nginx.conf").read_text()
    settings = load_settings({})
    directives = dict(re.findall(r"^ +([a-z_]+) (\w+);", conf, re.MULTILINE))
    # That of the errors themselves, none, is left out; the first one is that of all other routes.
    small, *limits = re.findall(r"client_max_body_size ([1-9]\w*);", conf)
    bodies, uploads = settings.max_body_bytes, settings.max_upload_bytes + FORM_BYTES
    for limit, max_bytes in zip(limits, (bodies, uploads), strict=True):
        assert max_bytes < amount(f"{limit}b") <= 1.25 * max_bytes
    groups = re.findall(r"location ~ \^/\(([^)]+)\)\$", conf)
    buffered, unbuffered = ([f"/{each}" for each in group.split("|")] for group in groups)
    # The body of this route names a file.
    assert amount(f"{small}b") >= MAX_OPENAI_BATCH_BYTES
    assert {*buffered, *unbuffered, "/v1/batches"} == routes_with_a_body(settings)
    longest_s = max(settings.web_timeout_s, settings.max_wait_s, settings.completion_wait_s)
    assert amount(directives["proxy_read_timeout"]) > longest_s
    assert amount(directives["client_header_timeout"]) == HEADER_S
    assert amount(directives["client_body_timeout"]) == BODY_S
    assert directives["proxy_buffering"] == "off"
    # Only an upload reaches the web server before it is complete.
    (at,) = re.findall(r"location ([^{]+) {[^}]*proxy_request_buffering off;", conf)
    assert at == f"~ ^/({groups[1]})$"
    assert set(unbuffered) == {"/batches", "/v1/files"}
    assert conf.count("proxy_request_buffering on;") == 1
    assert f"set $web http://web:{settings.port};" in conf


def test_bodies_of_one_client_fill_at_most_a_third_of_the_edge():
    conf = (REPOSITORY / "deploy/nginx/nginx.conf").read_text()
    small, large = re.findall(r"client_max_body_size ([1-9]\w*);", conf)[:2]
    # Bodies that fit the buffer of a request need no file.
    assert f"client_body_buffer_size {small};" in conf
    digits = int(re.search(r'"~\^\[0-9\]{(\d+)}"', conf)[1])
    num_large = int(re.search(r"limit_conn large_bodies (\d+);", conf)[1])
    num_at_once = int(re.search(r"limit_conn connections (\d+);", conf)[1])
    most_bytes = num_large * amount(f"{large}b") + (num_at_once - num_large) * 10 ** (digits - 1)
    (tmpfs,) = SERVICES["edge"]["tmpfs"]
    tmpfs_bytes = amount(re.search(r"size=(\w+)", tmpfs)[1] + "b")
    assert 3 * most_bytes <= tmpfs_bytes
    # Its pages count as memory of the container; nginx itself needs the rest.
    assert amount(SERVICES["edge"]["mem_limit"] + "b") >= tmpfs_bytes + 128 * 1024**2


def test_edge_gives_errors_as_the_web_server_does():
    conf = (REPOSITORY / "deploy/nginx/nginx.conf").read_text()
    conf += (REPOSITORY / "deploy/nginx/problem.conf").read_text()
    reply = re.findall(r"^ +(\d{3}|default) '(\"type\".*)';$", conf, re.MULTILINE)
    told_as = {"default": "400", **dict(re.findall(r"error_page (\d{3}) =(\d{3}) ", conf))}
    own = set(re.findall(r"^\| `(\w+)` \| \d", EDGE_CODES, re.MULTILINE))
    for status, members in reply:
        error = json.loads(f"{{{members}}}")
        known = STATUS_BY_CODE.get(error["type"])
        assert known == int(told_as.get(status, status)) or error["type"] in own
        assert error["title"] == error["type"].replace("_", " ").capitalize()
        assert set(error) == {"type", "title", "detail", "retryable"}
    handled = set(re.findall(r"\b\d{3}\b", " ".join(re.findall(r"error_page (.*) /", conf))))
    assert {status for status, _ in reply} - {"default"} <= handled


def test_edge_and_web_server_answer_to_the_names_of_the_edge():
    conf = (REPOSITORY / "deploy/nginx/nginx.conf").read_text()
    servers = [server for server in conf.split("    server {\n") if "listen 8" in server]
    assert len(servers) == 3
    for server in servers:
        is_default = "listen 8443 ssl default_server;" in server
        assert is_default == ("return 421;" in server)
        assert is_default != ("include /tmp/server_name.conf;" in server)
    script = SERVICES["edge"]["command"][-1]
    assert 'echo "server_name localhost $$EDGE_SERVER_NAMES;" > /tmp/server_name.conf' in script
    given = SERVICES["web"]["environment"]["EVASCORE_ALLOWED_HOSTS"]
    assert re.sub(r"\$\{EDGE_SERVER_NAMES:-\}", "a.example b.example", given).startswith(
        "web a.example b.example "
    )
    names = re.sub(r"\$\{\w+:-\}", "", given)
    assert load_settings({"EVASCORE_ALLOWED_HOSTS": names}).allowed_host_names == ("web",)


def test_edge_tells_the_limits_that_it_keeps():
    conf = (REPOSITORY / "deploy/nginx/nginx.conf").read_text()
    per_s = re.search(r"rate=(\d+)r/s", conf)[1]
    at_once = re.search(r"limit_conn connections (\d+);", conf)[1]
    large = re.search(r"limit_conn large_bodies (\d+);", conf)[1]
    assert f"{large} open requests with a body of 1 MB or more or without a Content-Length." in conf
    assert f"{at_once} at once per client ({large} with large bodies)" in DOCUMENT
    assert f"The limits are {per_s} requests a second, {at_once} open requests, and" in conf
    assert f"{per_s} requests per second and {at_once} at once" in DOCUMENT


def test_prometheus_sends_the_token_of_its_secret():
    config = yaml.safe_load((REPOSITORY / "deploy/monitoring/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    assert compose()["secrets"][secret]["file"] == "${METRICS_TOKEN_FILE:-/dev/null}"


def test_alertmanager_of_the_document_is_where_prometheus_looks():
    written = re.search(r"```yaml\n(services:\n  alertmanager:.*?)```", DOCUMENT, re.DOTALL)[1]
    ((name, service),) = yaml.safe_load(written)["services"].items()
    config = yaml.safe_load((REPOSITORY / "deploy/monitoring/prometheus.yml").read_text())
    (found,) = config["alerting"]["alertmanagers"]
    (lookup,) = found["dns_sd_configs"]
    # Its own default port.
    assert lookup == {"names": [name], "type": "A", "port": 9093}
    assert set(service["networks"]) <= set(SERVICES["prometheus"]["networks"])
