"""Ansible's events as answers of boards, and the bounds within which Ansible works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.environments.environment import environment
from bench.errors import EnvironmentFault
from bench.fleet import plays
from bench.fleet.inventory import FleetBoard
from bench.fleet.plays import Ansible, PlayAnswer

ANSIBLE = environment("ansible")
ansible = pytest.mark.skipif(not ANSIBLE.ready, reason="needs Ansible: bench engines install ansible")


def _event(kind: str, **result: object) -> dict[str, object]:
    return {"event": kind, "event_data": {"host": "lab-1", "task": "state", "res": result}}


@pytest.mark.parametrize(
    ("words", "reason", "refusal"),
    [
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "its host key is not the one that is known", True),
        ("No ED25519 host key is known for 10.0.0.2 and", "its host key is not known here", True),
        ("nv@10.0.0.2: Permission denied (publickey).", "it lets this user's key not in", True),
        ("ssh: connect to host 10.0.0.2 port 22: Connection timed out", "no answer", False),
        ("ssh: connect to host 10.0.0.2 port 22: No route to host", "no answer", False),
        ("ssh: connect to host 10.0.0.2 port 22: Connection refused", "nothing answers at its port", False),
        ("client_loop: send disconnect: Broken pipe", "the link was cut", False),
        ("tar: x: Cannot write: No space left on device", "its disk is full", True),
    ],
)
def test_what_ssh_says_becomes_a_reason_that_names_nobody(words: str, reason: str, refusal: bool) -> None:
    answers = {"board-1": PlayAnswer()}
    plays._take(_event("runner_on_unreachable", msg=words), {"lab-1": "board-1"}, answers)

    assert (answers["board-1"].state, answers["board-1"].reason) == ("unreachable", reason)
    assert answers["board-1"].refusal is refusal


def test_words_that_nobody_knows_stay_in_the_private_log() -> None:
    answers = {"board-1": PlayAnswer()}
    plays._take(_event("runner_on_failed", msg="secret of lab-1"), {"lab-1": "board-1"}, answers)

    assert answers["board-1"].state == "failed"
    assert answers["board-1"].reason == "`state` failed there (private/ansible.log has the words)"


def test_what_each_task_said_is_kept_by_its_name() -> None:
    answers = {"board-1": PlayAnswer()}
    plays._take(_event("runner_on_ok", stdout="free\n"), {"lab-1": "board-1"}, answers)

    assert answers["board-1"] == PlayAnswer("ok", {"state": "free\n"}, None, task="state")


def test_an_event_of_a_host_that_was_not_asked_is_no_answer() -> None:
    answers = {"board-1": PlayAnswer()}
    plays._take(_event("runner_on_ok", stdout="x"), {"lab-2": "board-1"}, answers)

    assert answers["board-1"] == PlayAnswer()


@ansible
def test_a_play_comes_back_with_each_boards_words_and_leaves_variables_on_no_command_line(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("here ansible_connection=local\ngone ansible_host=127.0.0.1 ansible_port=9\n")
    place = tmp_path / "board"
    place.mkdir()
    (place / "jobs").mkdir()
    boards = [FleetBoard("board-1", "here", str(place)), FleetBoard("board-2", "gone", "x")]
    worker = Ansible(ANSIBLE.folder / "bin", tmp_path / "hosts.ini", tmp_path / "private" / "log", 10**6)

    answers = worker.play("poll", boards, {"fleet_job": "job; touch here", "fleet_task_s": 30})

    assert answers["board-1"].state == "ok"
    assert answers["board-1"].said["state"].split("\n")[0] == "free"
    assert answers["board-1"].said["state"].split()[-1] == "null"
    assert answers["board-2"].state == "unreachable"
    assert answers["board-2"].reason == "nothing answers at its port"
    assert sorted(path.name for path in place.iterdir()) == ["busy", "jobs"]
    assert (tmp_path / "private" / "log").stat().st_mode & 0o777 == 0o600
    (account,) = worker.accounts
    assert (account.play, account.boards) == ("poll", 2)
    assert account.peak_mib is None or account.peak_mib > 10


@ansible
def test_a_file_larger_than_allowed_cannot_be_fetched(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("here ansible_connection=local\n")
    job = tmp_path / "board" / "jobs" / "j"
    job.mkdir(parents=True)
    (job / "parcel.tar").write_bytes(b"0" * 3_000_000)
    worker = Ansible(ANSIBLE.folder / "bin", tmp_path / "hosts.ini", tmp_path / "log", 2_000_000)
    variables = {"fleet_job": "j", "fleet_task_s": 30, "fleet_into": str(tmp_path), "fleet_fetch_s": 30}

    answer = worker.play("fetch", [FleetBoard("board-1", "here", str(tmp_path / "board"))], variables)["board-1"]

    assert answer.state != "ok"
    fetched = tmp_path / "board-1.tar"
    assert not fetched.exists() or fetched.stat().st_size <= 2_000_000


def test_an_ansible_that_does_not_begin_is_told_with_what_helps(tmp_path: Path) -> None:
    (tmp_path / "ansible-runner").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    (tmp_path / "ansible-runner").chmod(0o755)
    worker = Ansible(tmp_path, tmp_path / "hosts.ini", tmp_path / "log", 10**6)

    with pytest.raises(EnvironmentFault, match="exit status 3"):
        worker.play("poll", [FleetBoard("board-1", "here")], {"fleet_job": "j"})
    assert "broken" in (tmp_path / "log").read_text()


def test_playbooks_use_no_module_while_a_board_measures() -> None:
    """A look is one short shell command; a module would be a Python interpreter on the board."""
    for name in ("poll", "look"):
        text = (Path("bench/fleet/playbooks") / f"{name}.yml").read_text()
        modules = [line.strip() for line in text.splitlines() if "ansible.builtin." in line]
        assert modules
        assert all(line.startswith("ansible.builtin.raw:") for line in modules)


def test_ssh_checks_host_keys_whatever_the_user_has_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")
    monkeypatch.setenv("ANSIBLE_SSH_ARGS", "-o StrictHostKeyChecking=no")
    env = Ansible(tmp_path, tmp_path, tmp_path, 1)._environment()

    assert env["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert env["ANSIBLE_SSH_ARGS"].startswith("-o StrictHostKeyChecking=yes ")
    assert "StrictHostKeyChecking=no" not in json.dumps(env)
