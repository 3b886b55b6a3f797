"""`cloudtrain clean --host`: what runs have left on a machine of the user's own."""

from __future__ import annotations

from functools import partial

from cloudtrain.cleanup import on_host
from cloudtrain.cleanup.on_host import Left
from cloudtrain.cli import following
from cloudtrain.config import settings
from cloudtrain.console.answer import Answer
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.pages import leftovers as shown
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.store import Store


def clean(
    host: str, names: list[str], *, identity: str | None, host_key: str | None, everything: bool, yes: bool, json: bool
) -> Answer:
    """List it; remove what is chosen: with `names` those, with `everything` all that does not live, else what is here.

    Raises:
        UsageError: nothing there has one of the names.
    """
    console = reporter(Look(json=json, plain=True), lines=False)
    store = Store()
    spec = on_host.spec(host, store, identity=_identity(identity), fingerprint=host_key)

    with on_host.supervisor(spec, partial(following.trusts, console), console.emit) as there:
        found = there.clean({})
        left = on_host.known(found, store)
        if missing := set(names) - {one.folder.name for one in left}:
            raise UsageError(
                f"no run folder on {host} is called {', '.join(sorted(missing))}",
                hint=f"cloudtrain clean --host {host} lists what is there",
                consequence="nothing was changed",
                code="no_leftover",
            )
        left = [one for one in left if not names or one.folder.name in names]
        chosen = [one for one in left if names or one.safe or (everything and not one.folder.lives)]
        console.show(*shown.on_host(host, left, found, asks=not yes))
        if chosen and not yes and console.may_ask():
            yes = console.ask(_question(chosen), default=False)
        if yes and chosen:
            # The host looks once more whether all of it is here; what is named goes whatever it holds.
            files = {one.folder.name: one.files if one.safe and not names else None for one in chosen}
            found = there.clean({one.folder.name: (one.folder.id, files[one.folder.name]) for one in chosen})
            left = on_host.known(found, store, before=left)
    stay = [one for one in left if one.folder.kept is not None]
    why = "; ".join(f"{one.folder.name} stays: {one.folder.kept}" for one in stay)
    error = ConnectionFailed(why, consequence="it is unchanged", code="not_removed") if stay else None
    values = {"host": host, "runs": [shown.host_record(one) for one in left]}
    return Answer(
        lambda: {**values, "regions": [], "refused": [], "leftovers": []},
        lambda _: shown.removed_on_host(host, left) if yes and chosen else [],
        error=error,
    )


def _question(chosen: list[Left]) -> str:
    lost = [one.folder.name for one in chosen if not one.safe]
    loss = f", with results of {', '.join(lost)} that may be nowhere else" if lost else ""
    return f"Remove {len(chosen)} of these{loss}?"


def _identity(given: str | None) -> str | None:
    found: str | None = settings.load({"identity": given}).get("identity")
    return found
