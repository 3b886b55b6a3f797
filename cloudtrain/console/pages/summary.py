"""The lines that plan and result consist of, whatever draws them."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from cloudtrain.billing import expiry
from cloudtrain.console.pages import failure, figures, plan_table
from cloudtrain.console.text import shown_path, verdicts
from cloudtrain.core import credentials
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.plan import Plan
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.text import counted, fitted, money, screen_safe, seconds, shortened, size, time_of_day
from cloudtrain.run_folder import generated
from cloudtrain.run_folder.outcome import NOT_PULLED, Result

_NAMED = 3  # of the results that are not here
_PLAN_HANG = 11  # what follows the titles of a plan: "  train    "


def plan_lines(plan: Plan, width: int | None = None) -> list[str]:
    """What will be done, where, what it can cost and who ends it; in at most `width` columns where that is given."""
    spec, offer, job = plan.spec, plan.offer, plan.spec.job
    rehearsal = spec.rehearsal
    git = f", git {plan.code.git}" if plan.code.git else ""
    files = counted(plan.code.files, "file")
    lines = [
        f"Plan for {spec.name}",
        *_what_lines(plan),
        *([f"  resume   from {spec.resume.run}, {spec.resume.where}"] if spec.resume else []),
        f"  code     {shown_path(Path(job.source))} ({files}, {size(plan.code.bytes)}{git})",
        *([f"  secrets  {', '.join(job.secrets)}"] if job.secrets else []),
        *([f"  stays    {'; '.join(plan.code.stays)}"] if plan.code.stays else []),
        *([f"  env      {plan.environment}"] if plan.environment else []),
        f"  where    {offer.where}{', emulated on this computer' if rehearsal else ''}",
    ]
    if offer.account and not rehearsal:
        lines.append(f"  account  {offer.account}")
    lines += image_lines(plan)
    every = f"every file that it writes below {Path(job.source).name}/, in " if job.command else ""
    lines.append(f"  results  {every}{shown_path(spec.folder)}")
    by_file: dict[str, list[str]] = {}
    for name, path in sorted(plan.origins.items()):
        by_file.setdefault(path, []).append(name)
    lines += [f"  from     {shown_path(Path(path))}: {', '.join(names)}" for path, names in by_file.items()]
    if any(c.price_per_hour for c in offer.candidates):
        lines += ["", *plan_table.lines(plan, width)]
    elif offer.price_note:
        lines.append(f"  {offer.price_note}")
    lines.append("")
    if rehearsal:
        lines += [
            "  Rehearsal: the region is emulated on this computer, training runs on its CPU, nothing is billed.",
            "  Prices and limits are those of the real run.",
        ]
    lines += [f"  warn     {warning}" for warning in (*plan.code.warnings, *offer.warnings)]
    if plan.limit_s is not None:
        enforcer = offer.enforcer or "its supervisor ends the training"
        lines.append(f"  Limit    {seconds(plan.limit_s)}, then {enforcer}")
    elif spec.target is not Target.EC2:
        lines.append("  Limit    none; nothing is billed (--max-time sets one)")
    told = {"Time": plan_table.last_line, "Away": away_line, "Keep": keep_line, "Spot": taken_line}
    lines += [f"  {title}     {line}" for title, line_of in told.items() if (line := line_of(plan))]
    if plan.at_most_usd is not None:
        real = " for the real one; this one costs nothing" if rehearsal else " for this run"
        lines.append(f"  At most  {money(plan.at_most_usd)}{real}")
    return fitted((screen_safe(line) for line in lines), width, _PLAN_HANG)


def _what_lines(plan: Plan) -> list[str]:
    """What runs: the user's command and its place in the project, or the settings of the shipped program."""
    spec, told = plan.spec, plan.training
    job, train = spec.job, spec.train
    epochs, recipe = (told.epochs, told.recipe) if told else (train.epochs, train.recipe)
    batch, lr = (told.batch_size, told.lr) if told else (train.batch_size, train.lr)
    if job.command:
        lines = [f"  command  {shortened(job.line, 500)}{f'   in {job.cwd}/' if job.cwd else ''}"]
        return lines + ([f"  with     {', '.join(credentials.typed(job.packages))}"] if job.packages else [])
    settings = [
        f"model {train.model}" if job.shipped else f"{job.line} --model {train.model}",
        counted(epochs, "epoch") if epochs else "the recipe's epochs" if job.shipped else "epochs not set",
        *([f"recipe {recipe}"] if recipe else []),
        *([f"batch {batch}"] if batch else []),
        *([f"learning rate {lr:g}"] if lr else []),
        f"seed {train.seed}",
        f"device {train.device}",
        *([shortened(shlex.join(credentials.typed(train.args)), 300)] if train.args else []),
    ]
    return [f"  train    {', '.join(settings)}"]


def image_lines(plan: Plan) -> list[str]:
    """Whose image a launch boots, who may reach its port 22, and its further tags; nothing of a machine that is there
    already."""
    ec2, found = plan.spec.ec2, plan.offer.details
    if ec2 is None or ec2.instance_id or found.image_id is None:
        return []
    if ec2.from_run:
        return [f"  machine  {found.instance_id} of {ec2.from_run}: taken over, nothing is launched"]
    owner = found.image_owner
    by = f" of {owner}" if owner == "amazon" else f" of account {owner}" if owner else ""
    door = ec2.ssh_cidr or "your address alone"
    if ec2.security_group:
        door = f"whoever {ec2.security_group} lets in"
    at = "at its private address, " if ec2.private_ip else ""
    lines = [f"  image    {found.image_id}{by}, {found.image_name}", f"  ssh      {at}open to {door}"]
    if ec2.tags:
        lines.append(f"  tags     {', '.join(f'{key}={value}' for key, value in ec2.tags.items())}")
    return lines


def ending_lines(result: Result) -> list[str]:
    """What a finished run leaves, below its Results block."""
    lines = []
    goals = result.metrics.get("goals")
    if isinstance(goals, dict) and goals:
        lines.append(f"goals    {verdicts(goals)}")
    final = result.metrics.get("final_test_acc")
    if isinstance(final, (int, float)):
        # With --val of the shipped job nothing was.
        held_out = "final_val_acc" in result.metrics
        picked = "the test set was opened once" if held_out else "the best epoch is picked on the test set"
        lines.append(f"last     test accuracy {final:.2f} in the last epoch; {picked}")
    if result.figure is not None:
        lines.append(f"figure   {figures.ending(result.figure)}")
    if result.error and result.error.code == NOT_PULLED:
        lines.append(f"results  {shown_path(result.folder)}: not pulled. {result.error.consequence}")
    elif result.artifacts:
        total = sum(entry.size for entry in result.artifacts)
        files = f"{counted(len(result.artifacts), 'file')}, {size(total)}"
        lines.append(f"results  {shown_path(result.folder)}, {files}, checksums verified")
    elif result.state.final:
        lines.append(f"results  {shown_path(result.folder)}: the log; {_no_files(result)}")
    if result.left:
        files = f"{counted(len(result.left), 'result')}, {size(sum(entry.size for entry in result.left))}"
        fate = "deleted with the machine" if result.life is InstanceLife.TERMINATED else "still on the machine"
        lines.append(f"left     {files}, {fate}: {', '.join(shortened(entry.name) for entry in result.left[:_NAMED])}")
    if result.state.final and (report := generated.report_in(result.folder)) is not None:
        lines.append(f"report   {shown_path(report)}")
    if result.cost_usd is not None:
        lines.append(f"cost     about {money(result.cost_usd)}")
    if result.rehearsed_usd is not None:
        real = money(result.rehearsed_usd)
        lines.append(f"cost     nothing is billed: a rehearsal. The same time on EC2: about {real}")
    lines += [f"left     {leftover}" for leftover in result.leftovers]
    return [screen_safe(line) for line in lines]


def _no_files(result: Result) -> str:
    """Why no result of a run that is over is here."""
    if result.elsewhere is None:
        return "none of its results was pulled"
    if result.left or result.elsewhere:
        return f"none of the {counted(len(result.left) + result.elsewhere, 'file')} that the job left was taken"
    return "the job left no files"


def error_of(result: Result) -> CloudtrainError | None:
    """What ended a run badly, in the form of a failure; None for one that ended well, as asked, or goes on."""
    if not result.error or result.error.code in ("stopped", "abandoned", NOT_PULLED):
        return None
    kept = failure.kept(result.folder, result.life, files=len(result.artifacts), usd=result.cost_usd)
    return result.error.shown(kept)


def away_line(plan: Plan) -> str | None:
    """What becomes of the machine if nobody comes back; None for a machine that is not the run's own."""
    ec2 = plan.spec.ec2
    if ec2 is None or ec2.instance_id or plan.limit_s is None:
        return None
    if not expiry.parks(plan):
        why = "a spot instance cannot park: " if ec2.spot else ""
        return f"{why}at the limit it is terminated, and what was not pulled by then is deleted with it"
    usd, disk = plan.offer.details.parked_per_day, plan.offer.details.root_gb
    costs = f"costs {money(usd)} a day" if usd is not None else "is billed"
    kept = f"the {disk} GB disk {costs}" if disk else f"its disk {costs}"
    wait = seconds(plan.spec.limits.grace_s)
    return f"{wait} after the training, or at the limit, it parks: GPU billing ends, but {kept} until cloudtrain pull"


def keep_line(plan: Plan) -> str | None:
    """What `--keep` means for a run of this plan; None where it was not asked for."""
    keep_s, failed_s, ec2 = plan.spec.limits.keep_s, plan.spec.limits.keep_on_failure_s, plan.spec.ec2
    if not keep_s and not failed_s:
        return None
    spot = ". EC2 may take a spot instance back before" if ec2 is not None and ec2.spot else ""
    stays = f"once the results are here the machine stays up {seconds(keep_s)} for cloudtrain ssh" if keep_s else ""
    failed = f"if it fails the machine stays up {seconds(failed_s)} for cloudtrain ssh" if failed_s else ""
    return f"{'; '.join(filter(None, (stays, failed)))}, never past the limit; it is billed meanwhile{spot}"


def taken_line(plan: Plan) -> str | None:
    """What follows if the spot instance is taken back; None where there is none of the run's own."""
    ec2, times = plan.spec.ec2, plan.spec.limits.spot_restarts
    if ec2 is None or not ec2.spot or ec2.instance_id:
        return None
    if not times:
        return "if EC2 takes it back the run is interrupted; cloudtrain run --resume continues it (--spot-restarts 0)"
    often = "once" if times == 1 else f"at most {times} times"
    return f"if EC2 takes it back it continues on another, {often}, while this command runs; the limit stays"


def ends_by(plan: Plan, began: float, at: float | None = None) -> str | None:
    """When a billed run ends itself, as a time of day here; None where nothing is billed.

    Args:
        began: unix seconds at which the run was planned.
        at: unix seconds at which its machine ends itself, where that is known.
    """
    if plan.limit_s is None or plan.price_per_hour is None:
        return None
    return time_of_day(at or began + plan.limit_s, time.time())


def status_word(result: Result) -> str:
    """One or two words for how a run stands."""
    return "done" if result.state is RunState.SUCCEEDED else result.state.value
