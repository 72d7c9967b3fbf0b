"""The rules and the scrape configuration of deploy/prometheus, and a runbook page for every alert."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from collectors.kafka.sender import Metrics as SenderMetrics
from collectors.netflow.metrics import Metrics as FlowMetrics
from collectors.packet.collector import Metrics as PacketMetrics
from collectors.packet.tap import Metrics as TapMetrics
from detector.app import Detector
from detector.config import Config
from detector.delivery import Metrics as DeliveryMetrics
from detector.detect import Metrics as DetectMetrics
from detector.reload import Metrics as ReloadMetrics

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
TESTS = sorted((Path(__file__).parent / "rules").glob("*.yml"))
TEXT = "".join(path.read_text() for path in RULES)
DASHBOARDS = [path.stem for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")]
tool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian package prometheus)")

# name → the lines of its stanza
ALERTS = {
    m[1]: m[2]
    for m in re.finditer(r"- alert: (\w+)\n(.*?)(?=\n      - |\n  - name|\n      #|\Z)", TEXT, re.S)
}
RECORDED = set(re.findall(r"- record: (\S+)", TEXT))


def exported():
    """Every name that a process of ours may expose."""
    registries = [CollectorRegistry() for _ in range(4)]
    Detector(Config(), registries[0])
    DetectMetrics(registries[0])
    SenderMetrics(registries[0], ["alerts"], role="detector_output")
    SenderMetrics(registries[1], ["flows"])
    FlowMetrics(registries[2])
    TapMetrics(registries[3])
    DeliveryMetrics(registries[3])
    ReloadMetrics(registries[3])
    if "poolwatch_collector_packet_frames" not in registries[0]._names_to_collectors:
        PacketMetrics(registries[3])
    names = set()
    for registry in registries:
        names.update(registry._names_to_collectors)
        for family in registry.collect():
            more = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            names.update(family.name + end for end in more)
    return names


def promtool(*arguments):
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.tools
@tool
def test_promtool_accepts_the_configuration_and_the_rules():
    said = promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    assert said.count("SUCCESS") == 2 + len(RULES)
    promtool("check", "rules", *map(str, RULES))


@pytest.mark.tools
@tool
def test_every_alert_fires_when_it_should_and_not_when_it_should_not():
    promtool("test", "rules", *map(str, TESTS))


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_loud_and_a_quiet_unit_test(name):
    text = "".join(path.read_text() for path in TESTS)
    quiet = re.findall(rf"alertname: {name}\n\s+exp_alerts: \[\]", text)
    loud = re.findall(rf"alertname: {name}\n\s+exp_alerts:\n", text)
    assert loud
    assert quiet or name == "PoolwatchWatchdog"


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_to_do(name):
    text = ALERTS[name]
    assert name.startswith("Poolwatch")
    for key in ("expr", "for", "severity", "component", "summary", "description"):
        assert re.search(rf"^\s+{key}: \S", text, re.M), key
    assert re.search(r"severity: (critical|warning|info)$", text, re.M)
    assert "{{" not in re.search(r"summary: (.*)", text)[1]
    page = re.search(r"runbook_url: \S*/docs/runbooks/(\S+)$", text, re.M)[1]
    assert page == f"{name}.md"
    board = re.search(r"dashboard_url: \S*/d/poolwatch-(\w+)$", text, re.M)[1]
    assert board in DASHBOARDS
    # A value is for people.
    for shown in re.findall(r"\{\{ \$value \|([^}]*)\}\}", text):
        assert re.search(r"humanize|printf", shown)
    assert "{{ $value }}" not in text


@pytest.mark.parametrize("name", ALERTS)
def test_every_runbook_page_has_its_parts(name):
    text = (RUNBOOKS / f"{name}.md").read_text()
    severity = re.search(r"severity: (\w+)", ALERTS[name])[1]
    summary = re.search(r"summary: (.*)", ALERTS[name])[1]
    waits = re.search(r"for: (\w+)", ALERTS[name])[1]
    assert text.startswith(f"# {name}\n\n*{summary}.* Severity `{severity}`")
    assert f"for {waits}." in text
    titles = re.findall(r"^## (.*)", text, re.M)
    assert titles == ["Meaning", "What it costs", "First look", "Causes and remedies"]
    assert re.search(r"^- `", text, re.M)
    for other in re.findall(r"Poolwatch[A-Z]\w+", text):
        assert other in ALERTS, other


def test_the_list_of_runbooks_is_complete():
    listed = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| `(\w+)` \| (.*) \|$", (RUNBOOKS / "README.md").read_text(), re.M
    )
    severity = {name: re.search(r"severity: (\w+)", text)[1] for name, text in ALERTS.items()}
    summary = {name: re.search(r"summary: (.*)", text)[1] for name, text in ALERTS.items()}
    assert listed == [(name, name, severity[name], summary[name]) for name in ALERTS]
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {"README", *ALERTS}


def test_rules_and_pages_name_only_metrics_that_exist():
    known = exported()
    pages = "".join(path.read_text() for path in RUNBOOKS.glob("*.md"))
    for text in (TEXT, pages):
        for name in set(re.findall(r"(?<![\w:])poolwatch_\w+(?![\w:.*])", text)):
            assert name in known, name
    for name in re.findall(r"\w+:poolwatch_\w+:\w+", TEXT + pages):
        assert name in RECORDED, name


def test_an_alert_stands_in_the_group_of_the_rules_that_it_uses():
    """Between groups there is no order: an alert would see the old or the new sample at random."""
    for path in RULES:
        for group in path.read_text().split("  - name: ")[1:]:
            here = re.findall(r"- record: (\S+)", group)
            for rule in re.split(r"\n      - ", group)[1:]:
                body = rule.split("\n", 1)[1]
                used = set(re.findall(r"\w+:poolwatch_\w+:\w+", body))
                assert used <= set(here), rule
                before = group.split(rule)[0]
                assert all(
                    f"record: {name}\n" in before for name in used - {rule.split(": ")[1].split()[0]}
                ), rule


def test_names_of_recording_rules_tell_level_metric_and_operation():
    assert all(re.fullmatch(r"[a-z0-9_]+:poolwatch_[a-z0-9_]+:[a-z0-9_]+", name) for name in RECORDED)


def test_rules_rely_on_jobs_that_are_scraped():
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    jobs = set(re.findall(r"job_name: (\S+)", text))
    assert {"poolwatch-run", "poolwatch-detector", "poolwatch-packets", "poolwatch-flows"} <= jobs
    for job in re.findall(r'job="([\w-]+)"', TEXT):
        assert job in jobs
    for group in re.findall(r'job=~"poolwatch-\(([\w|]+)\)"', TEXT):
        assert {f"poolwatch-{one}" for one in group.split("|")} <= jobs
    for place in ("targets", "compose"):
        made = {path.name for path in (DEPLOY / "prometheus" / place).glob("*.yml")}
        assert made == set(re.findall(r"targets/(\w+\.yml)\]", text))
