"""An inventory that people have works as it is, its mistakes are told with their place, and names stay private."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.environments.environment import environment
from bench.errors import ScenarioError, UsageError
from bench.fleet import inventory
from bench.fleet.inventory import FleetBoard, boards, scrubbed

ANSIBLE = environment("ansible")
ansible = pytest.mark.skipif(not ANSIBLE.ready, reason="needs Ansible: bench engines install ansible")
FILE = Path("hosts.ini")


def test_boards_are_called_by_their_aliases_and_keep_them() -> None:
    hosts = {"kitchen.lan": {}, "lab-7": {"firsttoken_alias": "orin-7"}, "lab-8": {}}
    found = boards(hosts, {"lab-8": "board-1"}, FILE)

    assert [(board.alias, board.name) for board in found] == [
        ("board-2", "kitchen.lan"),
        ("orin-7", "lab-7"),
        ("board-1", "lab-8"),
    ]


def test_an_alias_stands_once_and_is_a_plain_word() -> None:
    with pytest.raises(UsageError, match="two hosts are called 'a'"):
        boards({"x": {"firsttoken_alias": "a"}, "y": {"firsttoken_alias": "a"}}, {}, FILE)
    with pytest.raises(UsageError, match="not made of"):
        boards({"x": {"firsttoken_alias": "../a"}}, {}, FILE)


@pytest.mark.parametrize(
    "variables",
    [
        {"ansible_host_key_checking": "false"},
        {"ansible_host_key_checking": False},
        {"ansible_ssh_common_args": "-o StrictHostKeyChecking=no"},
        {"ansible_ssh_extra_args": "-o ControlMaster=no -o stricthostkeychecking=off"},
        {"ansible_ssh_args": "-o UserKnownHostsFile=/dev/null"},
    ],
)
def test_an_inventory_that_does_not_check_host_keys_is_refused(variables: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="without checking its host key"):
        boards({"x": variables}, {}, FILE)


def test_the_place_where_checking_is_switched_off_is_told(tmp_path: Path) -> None:
    file = tmp_path / "hosts.ini"
    file.write_text("[boards]\nx ansible_ssh_common_args='-o StrictHostKeyChecking=no'\n")

    with pytest.raises(UsageError, match=r"hosts\.ini:2:31: x is reached"):
        boards({"x": {"ansible_ssh_common_args": "-o StrictHostKeyChecking=no"}}, {}, file)


def test_a_stricter_inventory_is_as_welcome_as_a_jump_host() -> None:
    words = "-o ProxyJump=gate -o StrictHostKeyChecking=accept-new"

    assert boards({"x": {"ansible_ssh_common_args": words}}, {}, FILE)[0].alias == "board-1"


def test_a_boards_own_words_are_kept_without_its_name_address_user_and_home() -> None:
    hosts = {"kitchen": {"ansible_host": "10.1.2.3", "ansible_user": "mallory"}}
    (board,) = boards(hosts, {}, FILE)

    said = "mallory@10.1.2.3: /home/mallory/x and /home/eve/y on kitchen (kitchenette)"
    assert scrubbed(said, board) == "board-1@board-1: /home/user/x and /home/user/y on board-1 (kitchenette)"


def test_what_is_private_of_a_board_is_not_shown_by_chance() -> None:
    assert "10.1.2.3" not in repr(FleetBoard("a", "a", "f", ("10.1.2.3",)))


def test_names_are_kept_where_only_this_user_reads_them(tmp_path: Path) -> None:
    inventory.keep(tmp_path / "private" / "hosts.json", {"board-1": "kitchen"})

    assert (tmp_path / "private" / "hosts.json").stat().st_mode & 0o777 == 0o600


@ansible
def test_an_ini_inventory_with_groups_and_variables_works_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "hosts.ini"
    file.write_text("gate\n[orin]\nlab-[1:3] ansible_user=nv\n[orin:vars]\nansible_port=2222\n[all:children]\norin\n")
    found = inventory.read(ANSIBLE.folder / "bin", file, "orin")

    assert list(found) == ["lab-1", "lab-2", "lab-3"]
    assert found["lab-2"] == {"ansible_user": "nv", "ansible_port": 2222}
    with pytest.raises(UsageError, match="no host in 'thor'"):
        inventory.read(ANSIBLE.folder / "bin", file, "thor")


@ansible
def test_a_mistake_in_a_yaml_inventory_is_told_with_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("all:\n  hosts:\n    a: {ansible_host: 1.1.1.1\n  b:\n")

    with pytest.raises(ScenarioError, match=r"hosts\.yaml:4:4  .*Colons in unquoted values"):
        inventory.read(ANSIBLE.folder / "bin", file, "all")


@ansible
def test_a_mistake_in_an_ini_inventory_is_told_at_the_word_that_ansible_names(tmp_path: Path) -> None:
    file = tmp_path / "hosts.ini"
    file.write_text("[boards]\na ansible_host=1.2.3.4\nb ansible_host=1.2.3.4 thing\n")

    with pytest.raises(ScenarioError, match=r"hosts\.ini:3:24  Expected key=value .*got: thing"):
        inventory.read(ANSIBLE.folder / "bin", file, "all")


def test_an_inventory_that_is_not_there_says_where_it_is_sought(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        inventory.read(tmp_path, tmp_path / "none.ini", "all")
