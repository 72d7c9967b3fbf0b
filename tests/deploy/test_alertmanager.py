"""The shipped configuration of Alertmanager: well-formed, and it leads alerts where it says."""

import json
import re
import subprocess

import pytest
from alertmanager import AMTOOL, FOLDER
from documents import document

from detector.config import Alertmanager
from detector.exporters.alertmanager import NAMES, Known, alert, labels

CONFIG = FOLDER / "alertmanager.yml"
RULES = FOLDER.parent / "prometheus" / "rules"

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(AMTOOL is None, reason="needs amtool (Debian package prometheus-alertmanager)"),
]


def amtool(*arguments):
    done = subprocess.run([AMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_accepts_it():
    told = amtool("check-config", str(CONFIG))
    assert "SUCCESS" in told
    assert "1 templates" in told


@pytest.mark.parametrize(
    ("given", "receiver"),
    [
        (labels(document(), "page"), "page"),
        (labels(document(), "ticket"), "ticket"),
        ({"alertname": "PoolwatchCollectorDown", "severity": "critical"}, "page"),
        ({"alertname": "PoolwatchBusLag", "severity": "warning"}, "ticket"),
        ({"alertname": "PoolwatchLabelOverflow", "severity": "info"}, "nobody"),
        ({"alertname": "PoolwatchWatchdog", "severity": "info"}, "heartbeat"),
        ({"alertname": "SomethingElse"}, "ticket"),
    ],
    ids=lambda x: x if isinstance(x, str) else x["alertname"],
)
def test_alerts_are_led_by_their_severity(given, receiver):
    told = amtool(
        "config", "routes", "test", f"--config.file={CONFIG}", *(f"{k}={v}" for k, v in given.items())
    )
    assert told.split() == [receiver]


@pytest.mark.skipif(not RULES.is_dir(), reason="no rules")
def test_what_it_names_are_alerts_that_there_are():
    known = set(NAMES.values())
    for path in RULES.glob("*.yml"):
        known |= set(re.findall(r"alert: (\w+)", path.read_text()))
    named = re.findall(r'alertname=~?"([^"]+)"', CONFIG.read_text())
    for pattern in named:
        whole = re.compile(pattern)
        assert any(whole.fullmatch(name) for name in known), pattern
        for alternative in re.findall(r"\(([^)]*)\)", pattern):
            for word in alternative.split("|"):
                one = re.compile(pattern.replace(f"({alternative})", word))
                assert any(one.fullmatch(name) for name in known), f"{word} of {pattern}"


@pytest.mark.parametrize("count", [1, 30])
def test_the_templates_tell_an_alert_in_words(tmp_path, count):
    alerts = []
    for n in range(1, count + 1):
        given = document(n)
        known = Known(labels(given, "page"), "2026-11-22T10:00:00Z")
        made = alert(given, "page", known, None, Alertmanager(runbook_url="https://d/{alertname}"))
        alerts.append(made | {"status": "firing", "endsAt": "0001-01-01T00:00:00Z"})
    common = {
        k: v for k, v in alerts[0]["labels"].items() if k not in {"subscriber", "incident"} or count == 1
    }
    data = {
        "receiver": "page", "status": "firing", "alerts": alerts, "groupLabels": {}, "commonLabels": common,
        "commonAnnotations": alerts[0]["annotations"] if count == 1 else {}, "externalURL": "http://am",
    }  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(data))

    def rendered(name):
        return amtool(
            "template", "render", f"--template.glob={FOLDER}/templates/*.tmpl",
            f"--template.data={tmp_path}/data.json", f'--template.text={{{{ template "{name}" . }}}}',
        )  # fmt: skip

    title, text = rendered("poolwatch.title"), rendered("poolwatch.text")
    start = f"[FIRING {count}] PoolwatchMinerConfirmed sector university coin XMR"
    assert title.strip() == start + (": 198.51.100.1 (Physics) mines: XMR" if count == 1 else "")
    for said in ("Belief 0.9998", "accepted a share of rig-7", "Next: Find the host", "Runbook: https://d/"):
        assert said in text
    assert text.count("Belief") == min(count, 20)
    assert ("30 alerts in all" in text) == (count == 30)
