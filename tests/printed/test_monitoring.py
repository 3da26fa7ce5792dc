"""What `hub print prometheus-rules` and `hub print grafana` print, before the real programs.

promtool judges the rules and plays cases for each; a Prometheus scrapes a hub, runs the rules, and answers every query
of rules and dashboard with data. No Grafana runs here, it is no package of Debian's: that it draws the dashboard is not
tested, but what it would ask is asked, and where each panel stands is looked at.
"""

import asyncio
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from crews import crew, pids, published
from engines import Engine
from prints import printed, program
from running import PATIENCE, HubProcess, hub_process, send_signal, stream, talk, until

pytestmark = pytest.mark.once

HERE = Path(__file__).parent
SETTINGS = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: hub
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
FAILS = '''
def setup(hub):
    @hub.command("test:fails")
    async def fails(call):
        """Fail."""
        raise RuntimeError("on purpose")
'''
FILE = """
[[notify.channel]]
name = "nobody"
type = "command"
argv = ["/bin/false"]
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yml").write_text(printed("prometheus-rules"))
    shutil.copy(HERE / "rules_test.yml", folder)
    return folder / "rules.yml"


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads(printed("grafana"))


def promtool(*words: str, cwd: Path) -> tuple[int, str]:
    command = [program("promtool", "prometheus"), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_promtool_takes_the_rules(rules: Path) -> None:
    status, said = promtool("check", "rules", "--lint=all", "--lint-fatal", rules.name, cwd=rules.parent)
    assert status == 0, said


def test_every_rule_fires_at_what_it_is_for_and_at_nothing_else(rules: Path) -> None:
    named = re.findall(r"- alert: (\w+)", rules.read_text())
    cases = (rules.parent / "rules_test.yml").read_text()
    assert named
    assert all(f"alertname: {name}," in cases and f'alertname="{name}"' in cases for name in named)
    status, said = promtool("test", "rules", "rules_test.yml", cwd=rules.parent)
    assert status == 0, said


@pytest.mark.parametrize(("right", "wrong"), [("== 0\n        for", "== 2\n        for"), ("> 0.8", "> 0.6")])
def test_weakened_promtool_finds_what_a_rule_does_not_do(right: str, wrong: str, rules: Path, tmp_path: Path) -> None:
    shutil.copy(HERE / "rules_test.yml", tmp_path)
    assert right in rules.read_text()
    (tmp_path / "rules.yml").write_text(rules.read_text().replace(right, wrong))
    assert promtool("test", "rules", "rules_test.yml", cwd=tmp_path)[0] != 0


# ---- a Prometheus


def queries(rules: Path, dashboard: Any) -> dict[str, str]:
    """Every query, by where it stands; of a rule the part that is compared."""
    found = {}
    for name, expr in re.findall(r"- alert: (\w+)\n +expr: (.+)\n", rules.read_text()):
        found[f"rule {name}"] = re.sub(r" (==|>) [\d.]+$", "", expr)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            found[f"panel {panel['title']} {target['refId']}"] = expr
    return found


@pytest.fixture
def door() -> Iterator[socket.socket]:
    """Keeps a port for Prometheus, which takes it all the same: nothing listens there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock


class Prometheus:
    """One that runs, by its API."""

    def __init__(self, http: ClientSession, url: str) -> None:
        self._http, self._url = http, url

    async def get(self, path: str, **params: str) -> Any:
        async with self._http.get(f"{self._url}/api/v1/{path}", params=params) as response:
            answer = await response.json()
            assert answer["status"] == "success", answer
            return answer["data"]

    async def numbers(self, query: str) -> list[float]:
        """What it answers, but for what is not a number: a quantile of nothing."""
        found = await self.get("query", query=query)
        assert found["resultType"] == "vector"
        return [float(sample["value"][1]) for sample in found["result"] if not math.isnan(float(sample["value"][1]))]

    async def alerts(self) -> dict[str, str]:
        """Those that are pending or firing."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in (await self.get("alerts"))["alerts"]}


@asynccontextmanager
async def prometheus(folder: Path, rules: Path, port: int, door: socket.socket) -> AsyncIterator[Prometheus]:
    address = "{}:{}".format(*door.getsockname())
    settings = folder / "prometheus.yml"
    settings.write_text(SETTINGS.format(rules=rules, port=port))
    words = (f"--config.file={settings}", f"--storage.tsdb.path={folder / 'series'}", f"--web.listen-address={address}")
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program("prometheus", "prometheus"), *words, "--log.level=warn", cwd=folder, stdout=log, stderr=log
        )
    try:
        await until(lambda: process.returncode is not None or listens(door), "Prometheus listening")
        assert process.returncode is None, (folder / "prometheus.log").read_text()
        async with ClientSession() as http:
            while not await is_ready(http, f"http://{address}/-/ready"):
                await asyncio.sleep(0.05)
            yield Prometheus(http, f"http://{address}")
    finally:
        send_signal(process, signal.SIGTERM)
        await process.wait()


async def is_ready(http: ClientSession, url: str) -> bool:
    """Whether it has read what it kept: before, it answers 503."""
    async with http.get(url) as answer:
        return answer.status == 200


def listens(door: socket.socket) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(door.getsockname()) == 0


async def lives(hub: HubProcess) -> None:
    """A little of everything that is counted, again and again."""
    post = hub.http.post
    while True:
        for path, body in (
            ("api/events", {"event": "task:progress", "data": {"id": "t", "progress": 1}}),
            ("api/events", {"event": "task:progress", "data": {"id": "t", "progress": "far"}}),
            ("api/events", {"event": "a:b", "data": {"password": "x"}}),
            ("api/events", {"event": "agent:status_change", "data": {"id": "a", "status": "error"}}),
            ("api/commands/hub:ping", {}),
            ("api/commands/test:fails", {}),
            ("hooks/claude-code", {"hook_event_name": "Stop", "session_id": "s"}),
        ):
            async with post(hub.url + path, json=body) as response:
                await response.read()
        await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_a_prometheus_has_an_answer_to_every_query(
    tmp_path: Path, rules: Path, dashboard: Any, door: socket.socket
) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "hub.toml").write_text(FILE)
    missing = queries(rules, dashboard)
    assert len(missing) > 50
    async with (
        hub_process(tmp_path, "--load", "fails", status=-signal.SIGKILL) as hub,
        prometheus(tmp_path, rules, hub.port, door) as it,
    ):
        async with talk(hub.url), stream(hub.url):
            living = asyncio.create_task(lives(hub))
            ends, alerts = time.monotonic() + 3 * PATIENCE, dict[str, str]()
            while time.monotonic() < ends and (missing or alerts.get("HubCallsFail") != "firing"):
                missing = {name: query for name, query in missing.items() if not await it.numbers(query)}
                await asyncio.sleep(0.1)
                alerts = await it.alerts()  # while calls fail: it ends with them
            living.cancel()
        assert missing == {}
        (variable,) = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        assert await it.get(f"label/{label}/values", **{"match[]": metric}) == [f"127.0.0.1:{hub.port}"]
        for group in (await it.get("rules"))["groups"]:
            assert [rule["name"] for rule in group["rules"] if rule["health"] != "ok"] == []
        assert alerts["HubCallsFail"] == "firing"
        hub.signal(signal.SIGKILL)
        while "HubDown" not in await it.alerts():
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_a_prometheus_sees_no_counter_of_workers_fall(
    redis_engine: Engine, tmp_path: Path, rules: Path, door: socket.socket
) -> None:
    """One worker stands still, and one is killed: nothing is taken for a reset, and no audit log for a shorter one."""
    async with crew(redis_engine, tmp_path) as hub, prometheus(tmp_path, rules, hub.port, door) as it:

        async def sees(query: str, *wanted: float) -> None:
            async with asyncio.timeout(PATIENCE):
                while await it.numbers(query) != [*wanted]:
                    await asyncio.sleep(0.05)

        for number in range(12):
            await published(hub, number)
        await sees('hub_workers{state="up"}', 2)
        await sees('sum(hub_events_total{event="agent:status_change"})', 12)
        standing, other = pids(hub)
        os.kill(standing, signal.SIGSTOP)
        await sees('hub_workers{state="stale"} and on() up == 1', 1)
        os.kill(standing, signal.SIGCONT)
        await sees('hub_workers{state="up"}', 2)
        for _ in range(3):  # each time it is longer until it is started again
            os.kill(other, signal.SIGKILL)
            await until(lambda other=other: other not in pids(hub) and len(pids(hub)) == 2)  # type: ignore[misc]
            other = next(pid for pid in pids(hub) if pid != standing)
            await sees('hub_workers{state="up"}', 2)
        await sees('max_over_time(hub_workers{state="down"}[5m])', 1)
        counters = [name for name in await it.get("label/__name__/values") if name.endswith(("_total", "_count"))]
        assert {"hub_events_total", "hub_audit_records_total", "hub_delivery_seconds_count"} <= set(counters)
        for name in counters:
            assert set(await it.numbers(f"resets({name}[5m])")) <= {0.0}, name
        await sees('sum(hub_events_total{event="agent:status_change"})', 12)
        await sees("sum(hub_audit_records_total) > bool 2", 1)
        assert "HubAuditShorter" not in await it.alerts()


# ---- the dashboard


def test_the_dashboard_is_laid_out_without_gaps_and_overlaps(dashboard: Any) -> None:
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    cells: list[tuple[int, int]] = []
    for panel in panels:
        at = panel["gridPos"]
        cells += [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(set(cells)) == len(cells)
    height = max(y for _, y in cells) + 1
    assert len(cells) == 24 * height


def test_every_panel_asks_the_chosen_prometheus_for_the_chosen_hubs(dashboard: Any) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert names == {"datasource", "instance"}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            assert (panel["datasource"], target["datasource"]) == (source, source)
            assert 'instance=~"$instance"' in target["expr"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"instance", "__rate_interval"}
