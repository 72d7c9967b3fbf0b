"""Dashboards as Grafana reads them: a list of panels in, the JSON of a dashboard out."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "dashboards"
MENUS: Final = 'job=~"$job", instance=~"$instance"'
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA: Final = 39  # Grafana 10.4 and newer read it as it is; older ones do not know it
COLUMNS: Final = 24
HEIGHTS: Final = {"stat": 5, "table": 8}
HEIGHT: Final = 8
TYPES: Final = {"lines": "timeseries", "band": "timeseries"}

Json = dict[str, Any]


class Panel(NamedTuple):
    """One panel; ``queries`` are (expression, legend), where ``#`` stands for the menus' matchers."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int
    repeat: str = ""


class Dashboard(NamedTuple):
    """``panels`` are panels and titles of rows; ``menus`` more variables, each a label of a metric."""

    uid: str
    title: str
    description: str
    panels: Sequence[Panel | str]
    menus: Mapping[str, str]


def _menu(name: str, metric: str, matchers: str) -> Json:
    query = f"label_values({metric}{{{matchers}}}, {name})"
    return {
        "name": name, "label": name.capitalize(), "type": "query", "datasource": SOURCE,
        "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _menus(more: Mapping[str, str]) -> list[Json]:
    source = {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "current": {"selected": False, "text": "Prometheus", "value": "poolwatch-prometheus"},
    }  # fmt: skip
    ours = 'job=~"poolwatch-.+"'
    menus = [_menu("job", "up", ours), _menu("instance", "up", f'job=~"$job", {ours}')]
    return [source, *menus, *(_menu(name, metric, MENUS) for name, metric in more.items())]


def _targets(panel: Panel) -> list[Json]:
    shape = {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series")
    at_once = panel.kind in {"table", "stat"}
    return [
        {
            "refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expression.replace("#", MENUS),
            "legendFormat": legend or "__auto", "format": shape, "instant": at_once, "range": not at_once,
        }
        for i, (expression, legend) in enumerate(panel.queries)
    ]  # fmt: skip


def _override(pattern: str, **properties: Any) -> Json:
    """Other drawing for series whose name fits."""
    return {
        "matcher": {"id": "byRegexp", "options": pattern},
        "properties": [{"id": f"custom.{name}", "value": value} for name, value in properties.items()],
    }


def _field(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "custom": {}}
    overrides: list[Json] = []
    if panel.kind in {"lines", "band"}:
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
    if panel.kind == "band":
        defaults["custom"]["fillOpacity"] = 0
        overrides = [
            _override("low", lineWidth=0),
            _override("high", lineWidth=0, fillBelowTo="low", fillOpacity=20),
        ]
    if any(legend.endswith(" out") for _, legend in panel.queries):
        overrides = [_override("/ out$/", transform="negative-Y")]
    return {"defaults": defaults, "overrides": overrides}


def _options(kind: str) -> Json:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "none"}
    if kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": "s"}}
    if kind == "table":
        return {"showHeader": True}
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> Json:
    out: Json = {
        "id": number, "type": TYPES.get(panel.kind, panel.kind), "title": panel.title,
        "description": panel.description, "datasource": SOURCE, "targets": _targets(panel),
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHTS.get(panel.kind, HEIGHT)},
        "fieldConfig": _field(panel), "options": _options(panel.kind),
    }  # fmt: skip
    if panel.kind == "table":
        organize = {"excludeByName": {"Time": True}, "renameByName": {"Value": "number"}}
        out["transformations"] = [{"id": "organize", "options": organize}]
    if panel.repeat:
        out |= {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": 3}
    return out


def _placed(panels: Iterable[Panel | str]) -> list[Json]:
    out: list[Json] = []
    numbers = count(1)
    x = y = tallest = 0
    for panel in panels:
        if isinstance(panel, str):
            y += tallest
            grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
            out.append({"id": next(numbers), "type": "row", "title": panel, "collapsed": False,
                        "gridPos": grid, "panels": []})  # fmt: skip
            x, y, tallest = 0, y + 1, 0
            continue
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        out.append(_panel(panel, next(numbers), x, y))
        x, tallest = x + panel.width, max(tallest, HEIGHTS.get(panel.kind, HEIGHT))
    return out


def _restarts() -> Json:
    query = f"resets(poolwatch_detector_batch_seconds_count{{{MENUS}}}[5m]) > 0"
    return {
        "name": "Restarts", "datasource": SOURCE, "enable": True, "iconColor": "orange", "expr": query,
        "titleFormat": "restart of {{instance}}", "step": "60s",
    }  # fmt: skip


def document(dashboard: Dashboard) -> Json:
    """What Grafana's file provider reads."""
    link = {"type": "dashboards", "tags": ["poolwatch"], "asDropdown": False, "includeVars": True,
            "keepTime": True, "title": "poolwatch"}  # fmt: skip
    return {
        "id": None, "uid": dashboard.uid, "title": dashboard.title, "description": dashboard.description,
        "tags": ["poolwatch"], "schemaVersion": SCHEMA, "version": 1, "editable": False,
        "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "links": [link], "annotations": {"list": [_restarts()]},
        "templating": {"list": _menus(dashboard.menus)}, "panels": _placed(dashboard.panels),
    }  # fmt: skip


def texts(dashboards: Iterable[Dashboard]) -> dict[Path, str]:
    """Every file and what is to be in it."""
    return {
        FOLDER / f"{d.title.lower()}.json": json.dumps(document(d), indent=1, ensure_ascii=False) + "\n"
        for d in dashboards
    }


def write(dashboards: Iterable[Dashboard], *, check: bool = False) -> int:
    """Write the files, or only compare them; the exit status."""
    made = texts(dashboards)
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.name} is stale: run {sys.argv[0]}" if check else f"{path.name} written")  # noqa: T201
        if not check:
            path.write_text(made[path])
    return 1 if check and stale else 0
