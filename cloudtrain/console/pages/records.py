"""What `verify` found, human-readable."""

from __future__ import annotations

from cloudtrain.console.text import shown_path
from cloudtrain.core.text import screen_safe
from cloudtrain.run_folder.verify import Verification


def lines(found: Verification) -> list[str]:
    """One line a check, and what they come to."""
    shown = [f"{check.verdict.value:<9}  {check.subject:<26}  {check.detail}".rstrip() for check in found.checks]
    count = {verdict: sum(check.verdict == verdict for check in found.checks) for verdict in ("ok", "unchecked")}
    told = [f"{count['ok']} match the receipt"]
    if found.wrong:
        told.append(f"{len(found.wrong)} not")
    if count["unchecked"]:
        told.append(f"{count['unchecked']} could not be checked")
    shown.append(f"{found.run} in {shown_path(found.folder)}: {', '.join(told)}")
    return [screen_safe(line) for line in shown]
