"""What pages for people name is there: files, headings, metrics, keys."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "pcaps" / "README.md", *sorted(DOCS.rglob("*.md")))
# Not what a rule records: level:metric:operation.
NAMED = re.compile(r"(?<![:\w])poolwatch_[a-z0-9_]+[a-z0-9](?![:\w])")


def named(path):
    return path.relative_to(ROOT).as_posix()


def headings(path):
    lines = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", line.strip().lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for where, _, part in re.findall(r"\]\(([^)#\s]*)(#([^)\s]*))?\)", page.read_text()):
        if "://" in where or "{" in where:
            continue
        there = page.parent / where if where else page
        assert there.exists(), where
        assert not part or part in headings(there), f"{where}#{part}"


def test_every_metric_that_is_named_is_in_the_reference():
    told = set(re.findall(r"^\| `(\w+)`", (DOCS / "reference" / "metrics.md").read_text(), re.M))
    known = told | {name.removesuffix("_total") for name in told}
    files = (
        *PAGES,
        *ROOT.glob("deploy/prometheus/rules/*.yml"),
        *ROOT.glob("deploy/grafana/dashboards/*.json"),
    )
    for path in files:
        for name in set(NAMED.findall(path.read_text())) - {"poolwatch_campaign"}:  # of poolwatch_campaign*
            assert name in known or re.sub(r"_(bucket|count|sum)$", "", name) in known, (named(path), name)


def test_every_key_that_is_named_is_in_the_reference():
    text = (DOCS / "reference" / "configuration.md").read_text()
    keys = set(re.findall(r"^\| `([\w.]+)`", text, re.M))
    known = keys | {key.rsplit(".", depth)[0] for key in keys for depth in (1, 2, 3)}
    section = re.compile(
        r"`((?:kafka|detector|http|run|output|lists|campaigns|alertmanager|resolver)\.[a-z_0-9.]+)`"
    )
    for page in PAGES:
        if page.parent.name == "decisions":  # of modules
            continue
        for name in section.findall(page.read_text()):
            assert name in known or (ROOT / name).exists(), (named(page), name)
