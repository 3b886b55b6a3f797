"""What EC2 announces to a spot machine."""

from __future__ import annotations

import json
import os
import time

from .base import TYPE_CHECKING, Later
from .files import Run, save

if TYPE_CHECKING:
    import calendar
    import threading
    from typing import Any, Dict, Optional, Tuple
else:
    calendar = Later("calendar")
    threading = Later("threading")

# EC2 announces the end of a spot instance about two minutes ahead, at this address, and advises to ask every 5 s.
METADATA = "http://169.254.169.254"
SPOT_LEAD_S = 120.0
SPOT_EVERY_S = 5.0
# All asking is done beside the job, so these only bound what one question may take.
METADATA_TIMEOUT_S = 2.0
METADATA_LIMIT = 64 * 1024
TOKEN_S = 6 * 3600
# Of the announced time so much is kept for the hashes, the manifest and exit.json; of a short one a part.
SPOT_MARGIN_S = 10.0
SPOT_MARGIN_PART = 0.25
# A job whose machine's time is over by the clock, which may be wrong, gets this long to save all the same.
SPOT_LEAST_S = 2.0


class SpotWatch:
    """Asks EC2's metadata service (IMDSv2), beside the job, whether this spot instance is being taken back.

    A service that does not answer is asked again, and nobody hears of it: the job must not suffer from it.
    """

    def __init__(self, run: Run) -> None:
        # `time.monotonic` at which what is left of the job is killed; None: no notice has come.
        self.kill_at: Optional[float] = None
        self._run = run
        self._base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA
        self._token: Optional[str] = None
        self._token_at = 0.0
        # Unix seconds at which the service has last answered, as it says itself: this machine's clock may be wrong.
        self._asked_at: Optional[float] = None
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        advised = False
        while True:
            try:
                notice = self._ask("spot/instance-action")
                if notice is not None:
                    return self._taken(utc_of(notice.get("time")))
                if not advised and self._ask("events/recommendations/rebalance") is not None:
                    advised = True
                    tell(self._run, "rebalance", None)
            except Exception:
                # No such service, a proxy in its place, an answer that is none: asked again below.
                self._token = None
            time.sleep(SPOT_EVERY_S)

    def _taken(self, ends: Optional[float]) -> None:
        asked_at = time.time() if self._asked_at is None else self._asked_at
        left = SPOT_LEAD_S - SPOT_EVERY_S if ends is None else min(ends - asked_at, SPOT_LEAD_S)
        left = max(SPOT_LEAST_S, left - min(SPOT_MARGIN_S, SPOT_MARGIN_PART * left))
        self.kill_at = time.monotonic() + left
        tell(self._run, "spot", ends)

    def _ask(self, page: str) -> Optional[Dict[str, Any]]:
        """The JSON object on a page below meta-data/, None where there is no such page."""
        if self._token is None or time.monotonic() - self._token_at > TOKEN_S / 2:
            status, token = self._fetch("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)})
            if status != 200:
                raise OSError("no token")
            self._token, self._token_at = token.strip(), time.monotonic()
        status, text = self._fetch("GET", "meta-data/" + page, {"X-aws-ec2-metadata-token": self._token})
        if status == 404:
            return None
        if status != 200:
            raise OSError("status %d" % status)
        value = json.loads(text)
        return value if isinstance(value, dict) else None

    def _fetch(self, method: str, page: str, headers: Dict[str, str]) -> Tuple[int, str]:
        # Asked directly: this address is the machine's own, and no proxy may come between.
        from http.client import HTTPConnection
        from urllib.parse import urlsplit

        base = urlsplit(self._base)
        connection = HTTPConnection(base.hostname or "", base.port or 80, timeout=METADATA_TIMEOUT_S)
        try:
            connection.request(method, base.path.rstrip("/") + "/latest/" + page, headers=headers)
            answer = connection.getresponse()
            self._asked_at = date_of(answer.getheader("Date"))
            return answer.status, answer.read(METADATA_LIMIT).decode("utf-8")
        finally:
            connection.close()


def utc_of(text: Any) -> Optional[float]:
    """Unix seconds of "2026-11-23T12:34:56Z"; None where it is something else."""
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except (TypeError, ValueError):
        return None


def date_of(text: Optional[str]) -> Optional[float]:
    """Unix seconds that were not yet over at "Mon, 23 Nov 2026 12:34:56 GMT"; None where it is something else."""
    from email.utils import parsedate

    try:
        # It names the second that has begun: counted as over, no job is promised time that the machine does not have.
        return float(calendar.timegm(parsedate(text) or ())) + 1.0
    except (TypeError, ValueError, IndexError):
        return None


def tell(run: Run, kind: str, ends: Optional[float]) -> None:
    """Leave word for whoever follows the run; the latest one stands."""
    try:
        save(run.path("notice.json"), {"v": 1, "kind": kind, "at": time.time(), "ends": ends})
    except OSError:
        pass  # The notice itself matters more than that it is told of.
