"""`bench fleet plan|check|run|status|collect`: scenarios on many boards, reached through Ansible."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import RESULTS, AsJson, Results
from bench.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.fleet.campaign import Campaign
    from bench.fleet.inventory import FleetBoard
    from bench.fleet.ledger import Ledger
    from bench.fleet.order import Order

HELP = """Run scenarios on many boards, reached through Ansible.

Example: bench fleet check fleet.yaml && bench fleet run fleet.yaml
"""

fleet = typer.Typer(help=HELP, no_args_is_help=True)

FleetFile = Annotated[Path, typer.Argument(metavar="FLEET.yaml", help="the fleet's file")]


@fleet.command("plan")
def plan(
    file: FleetFile,
    boards: Annotated[int | None, typer.Option(min=1, help="reckon for so many boards, from the newest run")] = None,
    results: Results = RESULTS,
    json: AsJson = False,
) -> None:
    """Show boards, batches, minutes and bytes; connect to nothing.

    Example: bench fleet plan fleet.yaml --boards 500
    """
    from bench.fleet import ledger
    from bench.fleet.order import Order
    from bench.fleet.scale import expect

    order = Order.load(file)
    if boards is not None:
        found = expect(ledger.load(ledger.newest(results, order.model.fleet)), order, boards)
        print_json(found.to_json()) if json else typer.echo("\n".join(found.lines()))
        return
    known = _boards(order, results)
    serial = max(1, order.boards(order.model.serial, len(known)))
    if json:
        names = [board.alias for board in known]
        print_json({"fleet": order.model.fleet, "boards": names, "serial": serial, "scenarios": order.digests()})
        return
    for number in range(0, len(known), serial):
        batch = ", ".join(board.alias for board in known[number : number + serial])
        typer.echo(f"batch {number // serial + 1}   {batch}")
    _budget(order)


@fleet.command("check")
def check(file: FleetFile, results: Results = RESULTS, json: AsJson = False) -> None:
    """Look at every board: is it there, is it of the class, free, and fit to measure? Nothing is begun.

    0 enough boards are fit, 3 too few, 4 usage.

    Example: bench fleet check fleet.yaml
    """
    from bench.errors import Exit

    with _campaign(file, results) as campaign:
        fit = campaign.check(campaign.ledger.members)
        _show(campaign.ledger, json)
        if len(fit) < campaign.ledger.quorum:
            raise typer.Exit(Exit.INVALID)


@fleet.command("run")
def run(
    file: FleetFile,
    resume: Annotated[bool, typer.Option(help="go on with the newest run of this fleet")] = False,
    results: Results = RESULTS,
    report: Annotated[bool, typer.Option(help="write the fleet's page when done")] = True,
    json: AsJson = False,
) -> None:
    """Run the scenarios on every fit board, in batches, and fetch what they measured.

    A board whose link breaks goes on by itself and is waited for; nothing is begun twice. 0 as many boards finished as
    the quorum asks, 3 fewer, 4 usage.

    Example: bench fleet run fleet.yaml --resume
    """
    from bench.cli.signals import ends_on_term
    from bench.fleet import ledger

    with _campaign(file, results, new=not resume, quiet=json) as campaign:
        with ends_on_term():
            try:
                campaign.run()
                campaign.ledger.finished = ledger.now()
            finally:
                _keep(campaign)
        _conclude(campaign.folder, report=report, as_json=json)


@fleet.command("status")
def status(
    file: FleetFile,
    look: Annotated[bool, typer.Option(help="ask the boards whose run was begun; else show what is known")] = True,
    results: Results = RESULTS,
    json: AsJson = False,
) -> None:
    """Show the newest run of a fleet: which board is in which state, and why.

    Example: bench fleet status fleet.yaml
    """
    from bench.errors import UsageError
    from bench.fleet import ledger
    from bench.fleet.order import Order

    order = Order.load(file)
    folder = ledger.newest(results, order.model.fleet)
    if look and ledger.load(folder).of(*ledger.ALIVE):
        try:
            with _campaign(file, results, new=False, quiet=json) as campaign:
                campaign.look(campaign.ledger.of(*ledger.ALIVE))
                _keep(campaign)
        except UsageError as error:
            # Another command works with it and looks at the boards itself.
            typer.echo(error.message, err=True)
    _show(ledger.load(folder), json)


@fleet.command("collect")
def collect(
    file: FleetFile,
    baselines: Annotated[
        Path | None, typer.Option(help="add each board's run to its own baseline and to its class's, in this folder")
    ] = None,
    results: Results = RESULTS,
    report: Annotated[bool, typer.Option(help="write the fleet's page")] = True,
    json: AsJson = False,
) -> None:
    """Fetch what has finished since, and write the fleet's page.

    Example: bench fleet collect fleet.yaml --baselines results/baselines
    """
    from bench.fleet import ledger
    from bench.fleet.order import Order

    order = Order.load(file)
    folder = ledger.newest(results, order.model.fleet)
    if ledger.load(folder).of(*ledger.ALIVE):
        with _campaign(file, results, new=False, quiet=json) as campaign:
            campaign.look(campaign.ledger.of(*ledger.ALIVE))
            _keep(campaign)
    if baselines is not None:
        from bench.fleet.sessions import add

        for words in add(folder, ledger.load(folder), baselines):
            typer.echo(words, err=True)
    _conclude(folder, report=report, as_json=json)


@fleet.command("work", hidden=True)
def work(job: Annotated[Path, typer.Argument(help="the job's folder on this board")]) -> None:
    """Carry out a fleet's order on this board. `bench fleet run` calls it there; it is the process that measures."""
    from bench.cli import main
    from bench.cli.signals import ends_on_term
    from bench.fleet.work import work as carry_out

    with ends_on_term():
        raise typer.Exit(carry_out(job.absolute(), main))


@contextmanager
def _campaign(file: Path, results: Path, *, new: bool | None = None, quiet: bool = False) -> Iterator[Campaign]:
    """A fleet, held against other commands: a new run, the newest one, or (None) one that is kept nowhere."""
    import tempfile

    from bench import __version__
    from bench.environments.environment import provisioned
    from bench.fleet import ledger
    from bench.fleet.campaign import Campaign, boards_of, members_of
    from bench.fleet.order import Order
    from bench.fleet.plays import Ansible

    order = Order.load(file)
    folder = ledger.folder_of(results, order.model.fleet)
    private = folder / "private"
    with ledger.held(private), tempfile.TemporaryDirectory() as scratch:
        boards = _boards(order, results, keep=True)
        if new is False:
            place = ledger.unfinished(results, order.model.fleet, order.digests())
            state = ledger.load(place)
        else:
            count = len(boards)
            state = ledger.Ledger(
                fleet=order.model.fleet,
                id=ledger.new_id(),
                created=ledger.now(),
                scenarios=order.digests(),
                members=members_of(boards),
                serial=max(1, order.boards(order.model.serial, count)),
                quorum=order.boards(order.model.quorum, count),
                failures=order.boards(order.model.failures, count),
                emulated=order.model.emulate,
                versions={"firsttoken": __version__},
            )
            place = folder / state.id if new else Path(scratch)
        ledger.save(place, state)
        ansible = provisioned("ansible").parent
        plays = Ansible(ansible, order.inventory, private / "ansible.log", 1_000_000 * order.model.limits.megabytes)
        tell = (lambda line: None) if quiet else (lambda line: typer.echo(line, err=True))
        yield Campaign(order, boards_of(state, boards), plays, place, state, tell=tell)


def _keep(campaign: Any) -> None:
    """The ledger, with what the plays have cost."""
    from bench.fleet import ledger

    campaign.ledger.accounts += campaign.plays.accounts
    campaign.plays.accounts = []
    ledger.save(campaign.folder, campaign.ledger)


def _boards(order: Order, results: Path, *, keep: bool = False) -> tuple[FleetBoard, ...]:
    """The inventory's boards, with the aliases that they had before; kept in the private folder if so wanted."""
    import json

    from bench.environments.environment import provisioned
    from bench.fleet import inventory, ledger

    private = ledger.folder_of(results, order.model.fleet) / "private"
    known: dict[str, str] = {}
    if (private / "hosts.json").exists():
        known = {name: alias for alias, name in json.loads((private / "hosts.json").read_text()).items()}
    hosts = inventory.read(provisioned("ansible").parent, order.inventory, order.model.group)
    boards = inventory.boards(hosts, known, order.inventory)
    if keep:
        names = {alias: name for name, alias in known.items()} | {board.alias: board.name for board in boards}
        inventory.keep(private / "hosts.json", names)
    return boards


def _budget(order: Order) -> None:
    from bench.phrases import counted
    from bench.plan.blocks import draw
    from bench.plan.budget import expect

    total = 0.0
    for scenario in order.scenarios:
        drawn = draw(scenario)
        budget = expect(drawn, scenario.model, {}, scenario.base)
        total += budget.seconds
        typer.echo(f"{scenario.name:24} {counted(len(drawn.launches), 'launch'):>12}  {budget.seconds / 60:6.1f} min")
    typer.echo(f"{'a board':24} {'':12}  {total / 60:6.1f} min, guessed; batches come one after the other")


def _show(found: Ledger, as_json: bool) -> None:
    import dataclasses

    from bench.fleet import ledger

    if as_json:
        print_json(dataclasses.asdict(found))
        return
    for member in found.members:
        clock = f"clock {member.clock_offset_s:+.0f} s" if abs(member.clock_offset_s or 0) >= 1 else ""
        words = "  ".join(part for part in (member.host_class, clock, member.reason) if part)
        typer.echo(f"{member.alias:16} {member.state:12} {words}".rstrip())
    for note in found.notes:
        typer.echo(f"· {note}")
    typer.echo(ledger.told(found))


def _conclude(folder: Path, *, report: bool, as_json: bool) -> None:
    """Show the boards, write the page, and end with what the quorum says."""
    from bench.errors import Exit
    from bench.fleet import ledger

    found = ledger.load(folder)
    _show(found, as_json)
    if report and found.of("finished"):
        from bench.fleet.page import write

        typer.echo(f"report  {write(folder, found, Path('reports'))}", err=as_json)
    typer.echo(f"fleet   {folder}", err=as_json)
    if len(found.of("finished")) < found.quorum:
        raise typer.Exit(Exit.INVALID)
