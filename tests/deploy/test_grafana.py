"""The dashboards: the rules of Grafana's dashboard-linter, and every query run against a real Prometheus.

What Prometheus scrapes is a ``poolwatch run`` that has replayed pcaps/ and, over a real Kafka, collectors of
packets and of flows with a detector.
"""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import broker
import fleet
import prometheus
import pytest
from exported import v5

ROOT = Path(__file__).parent.parent.parent
GRAFANA = ROOT / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
LINT = json.loads((GRAFANA / "dashboards" / ".lint").read_text())["exclusions"]
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [
    pytest.param(board, panel, id=f"{name}-{panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
# What has no data in the set-up of this test, and why.
SILENT = {
    "poolwatch_collector_packet_kernel_": "nothing is captured from an interface here",
    "poolwatch_collector_packet_interface_": "nothing is captured from an interface here",
    "poolwatch_alert_delivery_last_success_": "there is no Alertmanager here",
    "poolwatch_campaign_hashrate": "the laboratory's miners mine at a pool each: no campaign",
    "poolwatch_campaign_power_watts": "the laboratory's miners mine at a pool each: no campaign",
    "poolwatch_campaign_subscribers_by_sector": "the laboratory's miners mine at a pool each: no campaign",
}
SELECTOR = re.compile(r"(?<![\w:$\"-])((?:poolwatch_|up\b|ALERTS\b|\w+:poolwatch_)[\w:]*)(\{[^}]*\})?")


def variables(board):
    return {v["name"]: v for v in board["templating"]["list"]}


def excused(rule, board, panel):
    entries = LINT.get(rule, {"entries": []})["entries"]
    return {"dashboard": board["title"], "panel": panel["title"]} in entries


def selectors(expression):
    """(metric, matchers) of every selector; labels in by () are none."""
    plain = re.sub(r"\b(by|on|without) \([^)]*\)", "", expression)
    return [(name, matchers or "") for name, matchers in SELECTOR.findall(plain)]


# -- the dashboard as a whole ----------------------------------------------------------------------------


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_dashboard_can_be_provisioned(board):
    assert board["id"] is None
    assert re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"])
    assert board["editable"] is False
    assert not {"__inputs", "__requires"} & set(board)
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_committed_dashboards_are_what_is_made():
    done = subprocess.run(
        [sys.executable, "-B", GRAFANA / "dashboards.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(BOARDS) == {"mining", "pipeline"}


def test_the_provisioning_files_fit_the_dashboards():
    source = (GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    provider = (GRAFANA / "provisioning" / "dashboards" / "poolwatch.yaml").read_text()
    uid = re.search(r"uid: (\S+)", source)[1]
    for text in (source, provider):
        assert text.count("apiVersion: 1\n") == 1
        assert "editable: true" not in text
    for board in BOARDS.values():
        assert variables(board)["datasource"]["current"]["value"] == uid
    pace = re.search(r"timeInterval: (\S+)", source)[1]
    scraped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert pace == re.search(r"scrape_interval: (\S+)", scraped)[1]
    assert re.search(r"path: /\S+", provider)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_template_datasource_rule(board):
    found = variables(board)["datasource"]
    assert (found["type"], found["query"], found["label"]) == ("datasource", "prometheus", "Data source")


@pytest.mark.parametrize("name", ["job", "instance"])
@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_template_job_and_instance_rules(board, name):
    found = variables(board)[name]
    assert found["datasource"]["uid"] == "${datasource}"
    assert (found["type"], found["label"], found["multi"]) == ("query", name.capitalize(), True)
    assert found["allValue"] == ".+"
    assert found["refresh"] == 2


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_template_label_promql_rule_shape(board):
    for found in variables(board).values():
        if found["type"] == "query":
            assert re.fullmatch(r"label_values\(\w+\{.*\}, \w+\)", found["query"]["query"])


# -- panels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_panel_datasource_title_description_and_units_rules(board, panel):
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_target_rate_interval_rule(board, panel):
    for target in panel["targets"]:
        for _, interval in re.findall(r"\b(rate|increase|irate)\([^\[]*\[([^\]]+)\]", target["expr"]):
            assert interval == "$__rate_interval"


@pytest.mark.parametrize(("board", "panel"), PANELS)
@pytest.mark.parametrize("label", ["job", "instance"])
def test_target_job_and_instance_rules(board, panel, label):
    rule = f"target-{label}-rule"
    used = [found for target in panel["targets"] for found in selectors(target["expr"])]
    assert used
    keeps = all(f'{label}=~"${label}"' in matchers for _, matchers in used)
    assert keeps != excused(rule, board, panel), used


def test_exclusions_have_a_reason_and_a_panel():
    titles = {(p.values[0]["title"], p.values[1]["title"]) for p in PANELS}
    for found in LINT.values():
        assert found["reason"]
        assert all((e["dashboard"], e["panel"]) in titles for e in found["entries"])


# -- queries, against a real Prometheus ------------------------------------------------------------------


@contextmanager
def exporting(port):
    """A router that tells of flows ten times a second, and loses every tenth datagram."""
    ended = threading.Event()

    def send():
        sequence = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not ended.wait(0.1):
                now = int(time.time())
                record = ("198.51.100.7", "203.0.113.3", 40000, 3333, 10, 1200, now - 50, now)
                if sequence % 10:
                    out.sendto(v5([record], now, sequence), ("127.0.0.1", port))
                sequence += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def history():
    """A week of an hour that looked like this one, in OpenMetrics: little traffic, no new miner."""
    now = int(time.time())
    out = []
    for name in ("all:poolwatch_mining_mbps:avg1h", "all:poolwatch_miners_confirmed:increase30m"):
        out.append(f"# TYPE {name} gauge")
        for day in range(7, 0, -1):
            out += [f"{name} {day / 1000} {now - day * 86400 + s}" for s in range(-60, 600, 60)]
    return "\n".join([*out, "# EOF", ""])


@pytest.fixture(scope="module")
def filled(kafka, tmp_path_factory):
    """A Prometheus that has seen all roles at work for a while."""
    if prometheus.BINARY is None:
        pytest.skip("needs prometheus (Debian package prometheus)")
    site = fleet.Site(kafka.address, broker.prefix(), partitions=2).create()
    ports = {name: fleet.free_port() for name in ("run", "detector", "packets", "flows")}
    udp = free_udp_port()
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    jsonl = str(tmp_path_factory.mktemp("jsonl"))
    captures = str(ROOT / "pcaps")
    started = []
    with ExitStack() as stack:

        @stack.callback
        def end():
            for process in started:
                process.kill()
                process.communicate()

        begin = lambda *words, **more: started.append(site.start(*words, **more))  # noqa: E731
        nobody = f"http://127.0.0.1:{fleet.free_port()}"
        begin("detect", "--listen", at["detector"], POOLWATCH_OUTPUT__JSONL=jsonl,
              POOLWATCH_ALERTMANAGER__URLS=nobody)  # fmt: skip
        begin("run", captures, "--listen", at["run"], POOLWATCH_BUS="embedded")
        begin("collect", "flows", "--udp", "127.0.0.1", "--ports", str(udp), "--listen", at["flows"])
        begin("collect", "packets", captures, "--pace", "20", "--listen", at["packets"])
        stack.enter_context(exporting(udp))
        targets = {name: [address] for name, address in at.items()}
        server = stack.enter_context(prometheus.Prometheus(targets, history()))
        server.wait('sum(up{job=~"poolwatch-.+"})', lambda found: found and found[0][1] == 4, 90)
        server.wait('poolwatch_miners{job="poolwatch-run", state="confirmed"} == 10')
        server.wait('sum(poolwatch_detector_messages_total{job="poolwatch-detector", stream="flows"}) > 20')
        server.wait('poolwatch_detector_watermark_timestamp_seconds{job="poolwatch-detector"} > 0')
        server.wait("increase(poolwatch_collector_netflow_lost_total[30s]) > 0")
        server.wait('device:poolwatch_power_kilowatts:sum{device="typical"} > 0')
        server.wait('ALERTS{alertname="PoolwatchSequenceLoss", alertstate="firing"}')
        yield server, started


def chosen(expression):
    """What Grafana sends with all menus at All, at the test's pace."""
    for name, value in {
        "$__rate_interval": "10s",
        "$job": ".+",
        "$instance": ".+",
        "$algorithm": ".+",
    }.items():
        expression = expression.replace(name, value)
    return expression


@pytest.mark.tools
@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_query_returns_data(filled, board, panel):
    server, started = filled
    for target in panel["targets"]:
        found = server.query(chosen(target["expr"]))
        silent = any(name in target["expr"] for name in SILENT)
        assert bool(found) != silent, (target["expr"], [p.poll() for p in started])


@pytest.mark.tools
@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_menu_has_something_to_choose(filled, board):
    server, _ = filled
    for menu in variables(board).values():
        if menu["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", menu["query"]["query"]).groups()
            assert any(label in labels for labels, _ in server.query(chosen(selector)))
    for note in board["annotations"]["list"]:
        server.query(chosen(note["expr"]))


@pytest.mark.tools
def test_every_query_of_a_runbook_is_one(filled):
    server, _ = filled
    asked = 0
    for page in (ROOT / "docs" / "runbooks").glob("Poolwatch*.md"):
        for said in re.findall(
            r"`([^`]+)`", page.read_text().partition("## First look")[2].partition("## ")[0]
        ):
            if re.search(r"(poolwatch_|\bup\{|prometheus_)", said) and "…" not in said:
                server.query(said)
                asked += 1
    assert asked > 40


@pytest.mark.tools
def test_every_query_of_the_monthly_report_is_one_and_tells_what_there_is(filled):
    server, _ = filled
    page = (
        (ROOT / "docs" / "operate.md").read_text().partition("### The monthly report")[2].partition("## ")[0]
    )
    asked = re.findall(r"^\| ([^|]+) \| `([^`]+)` \|$", page, re.M)
    assert len(asked) > 10
    # An hour has not begun yet where steps are of an hour.
    found = {row: server.query(said.replace("[30d:1h]", "[30d:1s]")) for row, said in asked}
    silent = {row for row, rows in found.items() if not rows}
    assert silent == {
        "campaigns' subscribers by sector", "campaigns' hash rate", "campaigns' kWh a day",
    }  # fmt: skip


@pytest.mark.tools
def test_every_rule_is_evaluated_without_complaint(filled):
    server, _ = filled
    rules = server.rules()
    assert [(r["name"], r["lastError"]) for r in rules if r["health"] != "ok"] == []
    silent = {r["name"] for r in rules if r["type"] == "recording" and not server.query(r["name"])}
    # Nothing is captured from an interface here.
    assert silent == {"instance_interface:poolwatch_collector_packet_kernel_drops:ratio5m"}
    assert server.query("all:poolwatch_mining_mbps:usual") == [
        ({"__name__": "all:poolwatch_mining_mbps:usual"}, 0.004)
    ]


@pytest.mark.tools
def test_recorded_figures_are_those_of_the_dashboard_and_of_the_exporters(filled):
    """Sums over the detector and ``run``; hash rates that lie within their bounds."""
    server, _ = filled
    for recorded, plain in (
        ("sum(state:poolwatch_miners:sum)", "sum(poolwatch_miners)"),
        ("sum(device:poolwatch_power_kilowatts:sum)", "sum(poolwatch_power_watts) / 1000"),
        ("sum(direction_coin:poolwatch_mining_mbps:sum)", "sum(poolwatch_mining_mbps)"),
        ("sum(direction_operator:poolwatch_mining_mbps:sum)", "all:poolwatch_mining_mbps:sum"),
    ):
        server.wait(f"abs({recorded} - {plain}) < 1e-9")
    rates = {m["algorithm"]: v for m, v in server.query("algorithm:poolwatch_hashrate:sum")}
    assert {"sha256d", "scrypt", "rx/0", "cn-pico"} <= set(rates)
    low = {m["algorithm"]: v for m, v in server.query("algorithm:poolwatch_hashrate:low95")}
    high = {m["algorithm"]: v for m, v in server.query("algorithm:poolwatch_hashrate:high95")}
    assert all(0 <= low[name] <= rates[name] * 1.01 <= high[name] * 1.02 for name in rates)


@pytest.mark.tools
def test_only_alerts_with_a_reason_fire(filled):
    """One datagram in ten is lost; alerts do not wait here."""
    server, _ = filled
    expected = {"PoolwatchWatchdog", "PoolwatchSequenceLoss"}
    # Nine new miners are a surge where Prometheus saw the replay before it was over.
    may = {"PoolwatchMinersSurge"}
    server.wait(
        'ALERTS{alertstate="firing"}',
        lambda found: {labels["alertname"] for labels, _ in found} - may == expected,
        20,
    )
