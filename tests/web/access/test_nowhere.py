"""The token shows nowhere: not in the arguments of any process, the log, a file, a page, an answer or an address."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import HubProcess, hub_process, run_hub, talk, until

TOKEN = "the-token-of-this-hub-0123456789"
PATHS = ("", "api/state", "api/events", "api/commands", "api/audit", "metrics", "healthz", "readyz", "login/x", "no")
BAD: tuple[dict[str, str], ...] = ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"})

# Loaded into a hub, which then tells its token at one place: what is searched for is really found there.
LEAKS = {
    "arguments": """
    async def child():
        process = await asyncio.create_subprocess_exec("cat", "-", TOKEN, stdin=-1, stdout=-3, stderr=-3)
        await asyncio.to_thread((hub.config.state_dir / "told").touch)
        await process.wait()
    hub.spawn(child)""",
    "log": "logging.getLogger('x').debug(TOKEN)",
    "stdout": """
    @hub.command("test:tell", effect="read")
    async def tell(call):
        print(TOKEN, flush=True)""",
    "files": "(hub.config.state_dir / 'note').write_text(TOKEN)",
    "answers": """
    async def shown(call):
        pass
    shown.__doc__ = TOKEN
    hub.command("test:shown", effect="read")(shown)""",
    "refusals": """
    @hub.command("test:tell", effect="read")
    async def tell(call):
        sensitive._own = ()  # else it is taken out of what a command says
        raise CommandError(TOKEN)""",
}


def leaking(folder: Path, leak: str) -> list[str]:
    imports = "import asyncio\nimport logging\nfrom hub import sensitive\nfrom hub.errors import CommandError\n"
    indented = "\n".join(f"    {line.removeprefix('    ')}" for line in LEAKS[leak].strip("\n").split("\n"))
    (folder / "leaking.py").write_text(f"{imports}TOKEN = {TOKEN!r}\ndef setup(hub):\n{indented}\n")
    return ["--load", "leaking"]


def arguments() -> Iterator[bytes]:
    """Of every process of this machine, as every account can read them."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            yield (process / "cmdline").read_bytes()


async def shown(hub: HubProcess) -> dict[str, str]:
    """All that a hub shows, by place, after it was asked with and without its token."""
    headers, answers, refusals = {"Authorization": f"Bearer {TOKEN}"}, [], []
    wanted = [(path, headers) for path in PATHS] + [(path, bad) for path in ("", "api/state") for bad in BAD]
    for path, given in wanted:
        async with hub.http.get(hub.url + path, headers=given) as answer:
            answers.append(f"{answer.url} {answer.headers} {await answer.text()}")
    async with hub.http.post(f"{hub.url}login", headers=headers) as answer:
        link = (await answer.json())["link"]
    async with hub.http.get(hub.url + link, allow_redirects=False) as answer:
        answers.append(f"{link} {answer.headers} {answer.cookies}")
    async with hub.http.post(f"{hub.url}api/commands/test:tell", headers=headers, json={}) as answer:
        refusals.append(await answer.text())
    async with talk(hub.url, headers=headers) as client:
        frame = await client.answer(await client.begin("test:tell"))
        refusals.append(str(frame["payload"]))
    files = [path for path in hub.state_dir.iterdir() if path.name != "token"]
    return {
        "arguments": b"\n".join(arguments()).decode("utf-8", "replace"),
        "files": "".join(path.read_bytes().decode("utf-8", "replace") for path in files),
        "answers": "".join(answers),
        "refusals": "".join(refusals),
    }


@pytest.mark.parametrize("leak", [None, *LEAKS])
async def test_the_token_shows_nowhere(tmp_path: Path, leak: str | None) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "token").write_text(TOKEN)
    flags = leaking(tmp_path, leak) if leak else []
    async with hub_process(tmp_path, "--auth", "token", "--open", "--log-level", "debug", *flags) as hub:
        if leak == "arguments":
            await until((state / "told").exists)
        where = ["--state-dir", str(state)]
        tail = asyncio.create_task(run_hub(tmp_path, "tail", "--count", "1", "end:*", *where))
        found = await shown(hub)
        said = [await run_hub(tmp_path, *words, *where) for words in (["call", "hub:info"], ["token", "--link"])]
        while not tail.done():
            said.append(await run_hub(tmp_path, "publish", "end:now", *where))
        said.append(await tail)
        assert {status for status, _, _ in said} == {0}
        found["arguments"] += b"\n".join(arguments()).decode("utf-8", "replace")
        assert hub.process.stdout
        hub.signal()
        await hub.ended()
        found["stdout"] = (hub.url.encode() + await hub.process.stdout.read()).decode() + str(said)
    found["log"] = hub.log
    assert {place for place, text in found.items() if TOKEN in text} == ({leak} if leak else set())
    assert all(found.values())
