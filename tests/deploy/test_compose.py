"""compose.yaml and the Dockerfile, as far as they can be read without Docker.

compose.yaml was also loaded by compose-go, the library of ``docker compose``, and the Dockerfile by hadolint,
when they were written.
"""

import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from detector.arguments import parser
from detector.config import load

yaml = pytest.importorskip("yaml", reason="no PyYAML")

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ROOT = DEPLOY.parent
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("poolwatch:")}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
every_service = pytest.mark.parametrize("name", SERVICES)
every_one_of_ours = pytest.mark.parametrize("name", OURS)


def default(text):
    """``${NAME:-default}`` without the variable."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_the_whole_system_is_there():
    assert list(SERVICES) == [
        "kafka", "topics", "flows", "packets", "detector", "prometheus", "alertmanager", "grafana",
    ]  # fmt: skip


@every_service
def test_a_service_says_whether_it_is_healthy_or_ends(name):
    service = SERVICES[name]
    if name == "topics":
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "on-failure:5"
    else:
        check = service["healthcheck"]
        assert check["test"][0] == "CMD"
        assert {"interval", "timeout", "retries", "start_period"} < set(check)
        assert service["restart"] == "unless-stopped"


@every_service
def test_who_is_waited_for_says_when_it_is_ready(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        ends = other == "topics"
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")
        assert other in SERVICES


@every_service
def test_an_image_is_of_one_version(name):
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_kafka_is_the_one_that_tests_run_and_the_image_is_of_this_version():
    tested = re.search(r"<version>([\d.]+)</version>", (ROOT / "tests/integration/kafka/pom.xml").read_text())
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{tested[1]}"
    version = re.search(r'^version = "([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert {s["image"] for s in OURS.values()} == {f"poolwatch:{version}"}
    assert f"-t poolwatch:{version}" in DOCKERFILE


@every_service
def test_a_log_cannot_fill_the_disk(name):
    assert {"max-size", "max-file"} <= set(SERVICES[name]["logging"]["options"])


@every_service
def test_nobody_may_gain_rights(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    # To become somebody else, once the ring is open, and keep the first of them.
    capturing = ["NET_RAW", "SETUID", "SETGID", "SETPCAP"]
    assert service.get("cap_add", []) == (capturing if name == "packets" else [])
    assert service.get("network_mode") == ("host" if name == "packets" else None)


@every_service
def test_nothing_is_reached_from_outside_unless_asked(name):
    for port in SERVICES[name].get("ports", ()):
        assert default(port).startswith("127.0.0.1:")
        assert ("$" in port) == (name == "flows")


@every_service
def test_what_is_mounted_is_there(name):
    for volume in SERVICES[name].get("volumes", ()):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]
        assert target.startswith("/")


def test_configurations_are_where_services_look_for_them():
    for path in (
        "prometheus/prometheus.yml", "prometheus/rules", "prometheus/compose/detector.yml",
        "alertmanager/alertmanager.yml", "grafana/dashboards", "grafana/provisioning/datasources",
    ):  # fmt: skip
        assert (DEPLOY / path).exists()
    provided = [p.read_text() for p in (DEPLOY / "grafana/provisioning/dashboards").iterdir()]
    folders = {yaml.safe_load(text)["providers"][0]["options"]["path"] for text in provided}
    mounted = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert folders <= mounted
    datasources = "".join(p.read_text() for p in (DEPLOY / "grafana/provisioning/datasources").iterdir())
    assert set(re.findall(r"\$\{(\w+)\}", datasources)) <= set(SERVICES["grafana"]["environment"])


def test_prometheus_scrapes_names_that_are_there():
    known = {*SERVICES, *(f"poolwatch-{name}-1" for name in SERVICES)}
    for path in (DEPLOY / "prometheus/compose").glob("*.yml"):
        for group in yaml.safe_load(path.read_text()) or ():
            for target in group["targets"]:
                name, port = target.split(":")
                assert name in known, path
                if name in OURS:
                    assert OURS[name]["environment"]["POOLWATCH_HTTP__LISTEN"].endswith(f":{port}")
    (host,) = SERVICES["prometheus"]["extra_hosts"]
    name, address = host.split(":")
    assert address == COMPOSE["networks"]["default"]["ipam"]["config"][0]["gateway"]
    assert OURS[name]["environment"]["POOLWATCH_HTTP__LISTEN"].startswith(address)


@every_one_of_ours
def test_a_command_is_one_that_poolwatch_knows(name):
    parser().parse_args([default(word) for word in OURS[name]["command"]])


@every_one_of_ours
def test_a_variable_is_configuration(name, monkeypatch):
    for variable, value in OURS[name]["environment"].items():
        assert variable.startswith("POOLWATCH_")
        if variable != "POOLWATCH_CONFIG":
            monkeypatch.setenv(variable, value)
    config = load(str(DEPLOY / "compose/poolwatch.toml"))
    assert config.bus == "kafka"
    # Every client finds one of the broker's advertised addresses.
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"://{config.kafka.bootstrap_servers[0]}" in advertised


@every_one_of_ours
def test_one_of_ours_writes_nowhere_but_in_memory(name):
    service = OURS[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=512m,mode=1777"]
    assert service["stop_grace_period"] == "45s"
    assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_there_is_no_default_password():
    told = (DEPLOY / "compose.yaml").read_text()
    assert not re.search(r"(?i)password(?!__FILE)\w*\s*[:=]", told)
    (secret,) = COMPOSE["secrets"].values()
    assert secret == {"file": "./compose/secrets/grafana-admin"}
    assert (
        SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana-admin"
    )
    assert "secrets/" in (DEPLOY / "compose" / ".gitignore").read_text().split()


# -- the health check, really run ------------------------------------------------------------------


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_says_what_livez_says(status, healthy):
    class Livez(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    checks = [s["healthcheck"]["test"][1:] for s in OURS.values() if "test" in s["healthcheck"]]
    in_image = re.search(r'CMD \["python", "-c", "(.*)"\]', DOCKERFILE)
    checks.append(["python", "-c", in_image[1]])
    with http.server.HTTPServer(("127.0.0.1", 0), Livez) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for program, option, code in checks:
                assert (program, option) == ("python", "-c")
                here = re.sub(r"http://[\d.]+:9464", f"http://127.0.0.1:{server.server_port}", code)
                done = subprocess.run([sys.executable, option, here], capture_output=True, check=False)
                assert (done.returncode == 0) == healthy
        finally:
            server.shutdown()
            thread.join()


# -- the image -------------------------------------------------------------------------------------


def test_the_image_is_made_of_files_that_are_there_and_let_through():
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    ]
    assert copied
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    let_through = {rule[1:].removesuffix("/**") for rule in rules if rule.startswith("!")}
    assert set(copied) == let_through
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_is_not_root_and_has_its_kernels():
    steps = re.findall(r"^(\w+) ", DOCKERFILE, re.M)
    assert steps.count("FROM") == 2
    assert all(
        re.fullmatch(r"python:3\.\d+-slim-\w+", f) for f in re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    )
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert re.findall(r"^USER (\S+)", last, re.M) == ["10001"]
    # By the user whose cache it is.
    assert last.index("USER 10001") < last.index("warm_kernels(print)") < last.index("ENTRYPOINT")
    assert 'ENTRYPOINT ["poolwatch"]' in last
    user = OURS["packets"]["environment"]["POOLWATCH_COLLECTORS__CAPTURE__USER"]
    assert f" {user} " in last.split("&&")[0]
