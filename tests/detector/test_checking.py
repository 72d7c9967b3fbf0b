"""``poolwatch check``: what only a start would find out, found before."""

import os
import re

import pytest

from detector import cli


@pytest.fixture
def told(tmp_path, capsys, monkeypatch):
    """What ``check`` says of a configuration, and its status."""
    monkeypatch.chdir(tmp_path)

    def ask(text):
        (tmp_path / "c.toml").write_text(text)
        status = cli.main(["check", "--config", "c.toml"])
        got = capsys.readouterr()
        return status, got.out + got.err

    return ask


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('collectors.capture.user = "nobody-at-all"', r"collectors.capture.user: user 'nobody-at-all'"),
        ('collectors.capture.follow = "none"', r"collectors.capture.follow: none is no folder"),
        ('collectors.packets.dns_resolvers = ["ns1"]', r"collectors.packets.dns_resolvers: 'ns1'"),
        ('resolver.servers = ["ns1"]', r"resolver.*'ns1'"),
        ('output.jsonl = "file/out"', r"output.jsonl: .*file is no folder"),
        ('output.jsonl = "held"', r"output.jsonl: held/alerts.jsonl is a folder"),
        ('output.jsonl = "shut/new"', r"output.jsonl: no right to write in shut"),
        (
            'bus = "rabbit"',
            r"c.toml: Invalid enum value 'rabbit' - at `bus`: must be \"embedded\" or \"kafka\"",
        ),
    ],
)
def test_what_a_start_would_stumble_over_is_refused_by_name(told, tmp_path, monkeypatch, text, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "held" / "alerts.jsonl").mkdir(parents=True)
    (tmp_path / "shut").mkdir()
    may = os.access
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "shut" and may(path, mode))
    status, said = told(text)
    assert status == 2
    assert re.search(words, said)


def test_folders_that_are_still_to_be_made_are_good_and_are_not_made(told, tmp_path):
    status, said = told(f'output.jsonl = "{tmp_path}/new/out"\ncollectors.capture.follow = "{tmp_path}"')
    assert (status, said) == (0, "configuration is good\n")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_may_not_be_looked_into_is_refused(told, monkeypatch):
    def shut(*_):
        raise PermissionError(13, "Permission denied", "out")

    monkeypatch.setattr("detector.checking._writable", shut)
    status, said = told('output.jsonl = "out"')
    assert status == 2
    assert "output.jsonl: [Errno 13] Permission denied: 'out'" in said
