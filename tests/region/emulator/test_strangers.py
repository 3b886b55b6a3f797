"""Another user of this computer, and a web page in a browser: neither runs or reads anything."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from cloudtrain.emulator import processes
from tests.browser import browser as browser
from tests.region.emulator.asking import FORM, KNOWN, send, signed

NOBODY = 65534


def run_instances(image: str, script: str) -> str:
    data = base64.b64encode(script.encode()).decode()
    asked = {"Action": "RunInstances", "Version": "2016-11-15", "ImageId": image, "InstanceType": "g4dn.xlarge"}
    return urlencode({**asked, "MinCount": "1", "MaxCount": "1", "UserData": data})


posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")


@posix
def test_the_folder_of_a_region_is_its_users_alone(account: Any) -> None:
    folder = account.region.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {"region.json", "inventory.json"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    instance = account.launch()
    account.login(instance).close()
    shims = account.region.machines()[instance].root / "usr" / "local" / "shims"
    assert {stat.S_IMODE(path.stat().st_mode) for path in shims.iterdir()} == {0o700}


# Imports all that it needs, then is somebody else, then tries; a file of another's is only opened.
ATTACK = """
import json, os, socket, sys
asked, paths = json.load(sys.stdin)
os.setgroups([])
os.setgid({nobody})
os.setuid({nobody})
answers, opened = [], []
for port, text in asked:
    with socket.socket() as link:
        link.settimeout(20)
        link.connect(("127.0.0.1", port))
        link.sendall(text.encode())
        answers.append(link.recv(65536).decode().split()[1])
for path in paths:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").close()
        opened.append(path)
    except OSError:
        pass
print(json.dumps([os.getuid(), answers, opened]))
"""


def raw(path: str, headers: dict[str, str], body: str, method: str = "POST") -> str:
    lines = [f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": str(len(body))}.items()]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n{body}"


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can be two users")
def test_another_user_runs_nothing_and_reads_nothing(open_account: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        account = open_account(folder=Path(place) / "region")
        region, proof = account.region, Path(place) / "proof"
        instance = account.launch("sleep 120 >/dev/null 2>&1 &")
        metadata = account.run(instance, "echo $AWS_EC2_METADATA_SERVICE_ENDPOINT")[1].decode().strip()
        program, *_ = processes.marked(region.core.mark)
        body = run_instances(account.image(), f"#!/bin/sh\necho got in > {proof}\n")
        port, service = urlsplit(region.endpoint_url).port, urlsplit(metadata).port
        host, its = {"Host": f"127.0.0.1:{port}"}, {"Host": f"127.0.0.1:{service}"}
        asked = [
            (port, raw("/", {**host, "Content-Type": FORM}, body)),
            (port, raw("/", signed(region, body, key=KNOWN), body)),
            (port, raw("/", signed(region, body, key=(region.access_key[0], "guessed")), body)),
            (port, raw("/_region/calls", host, "", "GET")),
            (port, raw("/_region/stop", host, "{}")),
            (port, raw("/moto-api/reset", host, "")),
            (service, raw("/latest/api/token", {**its, "X-aws-ec2-metadata-token-ttl-seconds": "60"}, "", "PUT")),
            (service, raw("/systemctl", its, "poweroff")),
        ]
        machine = region.machines()[instance].root
        paths = [region.folder, region.folder / "region.json", region.folder / "inventory.json", machine]
        paths += [machine / "usr" / "local" / "shims" / "systemctl", Path(f"/proc/{program}/environ")]
        before = region.calls()
        attack = subprocess.run(
            [sys.executable, "-IS", "-c", ATTACK.format(nobody=NOBODY)],
            input=json.dumps([asked, [str(path) for path in paths]]),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert attack.returncode == 0, attack.stderr
        assert json.loads(attack.stdout) == [NOBODY, ["403"] * len(asked), []]
        assert region.calls() == before and len(region.inventory()["instances"]) == 1
        assert account.look(instance)["State"]["Name"] == "running" and not proof.exists()
        # Asked by the owner, the same words run what they say.
        assert send(region.endpoint_url, signed(region, body), body)[0] == 200
        until_there(proof)


def until_there(path: Path) -> None:
    waited = threading.Event()
    assert any(path.exists() or waited.wait(0.05) for _ in range(600)), f"{path} does not come"


# -- a web page --------------------------------------------------------------------------------------------------------

# Each way in which a page can ask: scripts that say what they want to read, or that they want to read nothing; a form.
PAGE = """<!doctype html><title>A page</title><iframe name=answer></iframe>
<form method=post target=answer><input name=Action><input name=Version><input name=ImageId><input name=InstanceType>
<input name=MinCount><input name=MaxCount><input name=UserData></form>
<script>
const form = document.forms[0]
async function attack({region, metadata, authorization, body}) {
  const type = "application/x-www-form-urlencoded", read = []
  const ask = async (url, what) => {
    try {
      const answer = await fetch(url, what)
      read.push([answer.type, answer.status])
    } catch { read.push("blocked") }
  }
  const headers = {"Content-Type": type, "Authorization": authorization}
  await ask(region, {method: "POST", headers, body})
  await ask(region, {method: "POST", headers: {"Content-Type": type}, body})
  await ask(region, {method: "POST", headers: {"Content-Type": type}, body, mode: "no-cors"})
  await ask(region + "_region/calls", {})
  await ask(region + "_region/stop", {method: "POST", body: "{}", mode: "no-cors"})
  await ask(region + "moto-api/data.json", {})
  await ask(region + "moto-api/reset", {method: "POST", mode: "no-cors"})
  await ask(metadata + "/systemctl", {method: "POST", body: "poweroff", mode: "no-cors"})
  await ask(metadata + "/latest/user-data", {})
  for (const [name, value] of new URLSearchParams(body)) form.elements[name].value = value
  for (const path of ["", "ec2_us-east-1/x", "_region/stop"]) {
    form.action = region + path
    await new Promise(done => { document.querySelector("iframe").onload = done; form.submit() })
  }
  return read
}
</script>"""


@contextlib.contextmanager
def served(page: str) -> Iterator[str]:
    """A web site with one page."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *ignored: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join(20)


def test_a_web_page_runs_nothing_and_reads_nothing(account: Any, browser: Any, tmp_path: Path) -> None:
    region, proof = account.region, tmp_path / "proof"
    instance = account.launch()
    metadata = account.run(instance, "echo $AWS_EC2_METADATA_SERVICE_ENDPOINT")[1].decode().strip()
    body = run_instances(account.image(), f"#!/bin/sh\necho got in > {proof}\n")
    before = region.calls()
    told = {"region": f"{region.endpoint_url}/", "metadata": metadata.rsplit("/", 1)[0], "body": body}
    told["authorization"] = signed(region, body, key=KNOWN)["Authorization"]
    with served(PAGE) as site, contextlib.closing(browser.new_page()) as page:
        page.set_default_timeout(60_000)
        page.goto(site)
        read = page.evaluate("attack", told)
    # A page that asks to read nothing gets an answer that says nothing.
    assert len(read) == 9 and all(one in ("blocked", ["opaque", 0]) for one in read), read
    assert region.calls() == before and len(region.inventory()["instances"]) == 1
    assert not region.wait_until_stopped(0) and not proof.exists()
    assert account.look(instance)["State"]["Name"] == "running"
    assert send(region.endpoint_url, signed(region, body), body)[0] == 200
    until_there(proof)
