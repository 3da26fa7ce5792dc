"""The page's morph, in a real Chromium: whatever two trees are, the first becomes the second, and what is the same in
both stays the same node."""

import json
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import HubProcess, hub_inside
from browser.test_page_safety import rewrite

from hub import Hub

# Random trees: elements with and without ids, attributes, texts; `fresh` comes from another document, as on the page.
PROPERTY = """
    (async (seed, rounds) => {
      const { morph } = await import("./static/morph.js");
      const random = () => {  // mulberry32
        let x = (seed = (seed + 0x6d2b79f5) | 0);
        x = Math.imul(x ^ (x >>> 15), x | 1);
        x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
        return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
      };
      const pick = (list) => list[Math.floor(random() * list.length)];
      const tree = (doc, depth, ids) => {
        const node = doc.createElement(pick(["div", "p", "ul", "details", "span"]));
        if (ids.length && random() < 0.5) node.id = ids.splice(Math.floor(random() * ids.length), 1)[0];
        for (const name of ["title", "class", "data-x"]) if (random() < 0.3) node.setAttribute(name, pick("abc"));
        for (let left = depth ? Math.floor(random() * 5) : 0; left; left -= 1) {
          node.append(random() < 0.3 ? pick(["one", "two", "<b>"]) : tree(doc, depth - 1, ids));
        }
        node.normalize();
        return node;
      };
      const change = (node, ids) => {
        for (const child of [...node.children]) {
          if (random() < 0.15) child.remove();
          else if (random() < 0.2) node.append(child);
          else if (random() < 0.1) child.before(tree(node.ownerDocument, 1, ids), "three");
          else change(child, ids);
        }
        if (random() < 0.2) node.setAttribute("title", pick("abc"));
        if (random() < 0.1) node.removeAttribute("class");
        node.normalize();
      };
      const ids = () => [..."abcdefghij"].map((name) => `id-${name}`);
      const place = document.body.appendChild(document.createElement("div"));
      let kept = 0;
      for (let round = 0; round < rounds; round += 1) {
        const old = document.createElement("div");
        old.append(tree(document, 4, ids()));
        place.replaceChildren(old);
        const fresh = document.implementation.createHTMLDocument().createElement("div");
        if (random() < 0.2) fresh.append(tree(fresh.ownerDocument, 4, ids()));
        else {
          fresh.append(fresh.ownerDocument.importNode(old.firstChild, true));
          change(fresh, ["id-k", "id-l", "id-m"]);
        }
        const wanted = document.importNode(fresh, true);
        const before = new Map([...old.querySelectorAll("[id]")].map((node) => [node.id, node]));
        const parents = new Map([...before].map(([id, node]) => [id, node.parentNode]));
        morph(old, fresh);
        if (!old.isEqualNode(wanted)) return { round, is: old.outerHTML, wanted: wanted.outerHTML };
        for (const node of old.querySelectorAll("[id]")) {
          const was = before.get(node.id);
          if (was?.localName === node.localName && parents.get(node.id) === node.parentNode) {
            if (was !== node) return { round, lost: node.id };
            kept += 1;
          }
        }
      }
      place.remove();
      return { kept };
    })(%d, 400)
"""


@pytest.mark.parametrize("seed", range(1, 6))
async def test_one_tree_becomes_the_other_and_what_stays_is_the_same(hub: HubProcess, page: Page, seed: int) -> None:
    await page.open(hub.url)
    found = await page.evaluate(PROPERTY % seed)
    assert found.get("kept", 0) > 100, found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("else if (same !== at)", "else if (false)"),
        ("if (!fresh.hasAttribute(name)", "if (false"),
        ("let same = known.get(node.id);", "let same;"),
        ("node.remove();", "{}"),
    ],
    ids=["order", "attributes", "identity", "removal"],
)
async def test_the_property_sees_each_part_missing(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    rewrite(monkeypatch, tmp_path, "static/morph.js", old, new)
    async with hub_inside(Hub(state_dir=tmp_path / "state")) as url:
        await page.without_scripts()
        await page.open(url)
        await page.send("Emulation.setScriptExecutionDisabled", value=False)
        assert "kept" not in await page.evaluate(PROPERTY % 1)
        await page.leave()


MORPHED = """
    (async () => {{
      const {{ morph }} = await import("./static/morph.js");
      const parse = (html) => {{
        const doc = document.implementation.createHTMLDocument();
        return new Promise((resolve) => {{
          const request = new XMLHttpRequest();
          request.open("GET", URL.createObjectURL(new Blob([html], {{ type: "text/html" }})));
          request.responseType = "document";
          request.onload = () => resolve(request.response.body.firstChild);
          request.send();
        }});
      }};
      const place = document.body.appendChild(document.importNode(await parse({old}), true));
      {before}
      morph(place, await parse({new}));
      return {after};
    }})()
"""


async def morphed(page: Page, old: str, new: str, before: str, after: str) -> object:
    """What `after` is when `old` has become `new`; blobs must be allowed to be fetched for that."""
    return await page.evaluate(MORPHED.format(old=json.dumps(old), new=json.dumps(new), before=before, after=after))


@pytest.fixture
async def open_page(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    from hub.web.access import guard

    policy = guard.HEADERS["Content-Security-Policy"].replace("connect-src 'self'", "connect-src 'self' blob:")
    monkeypatch.setitem(guard.HEADERS, "Content-Security-Policy", policy)
    return page


@pytest.mark.parametrize(
    ("old", "new", "before", "after", "wanted"),
    [
        pytest.param(
            "<ul><li id=a><input id=x></li><li id=b></li></ul>",
            "<ul><li id=b></li><li id=c></li><li id=a><input id=x title=new></li></ul>",
            "const x = place.querySelector('#x'); x.value = 'typed'; x.focus(); x.setSelectionRange(1, 3);",
            "[x.value, document.activeElement === x, x.selectionStart, x.selectionEnd, x.title]",
            ["typed", True, 1, 3, "new"],
            id="typed text, focus and selection, in a row that moves",
        ),
        pytest.param(
            "<ul><li id=a><details id=d><summary>s</summary>t</details></li></ul>",
            "<ul><li id=b></li><li id=a><details id=d><summary>s</summary>u</details></li></ul>",
            "place.querySelector('#d').open = true;",
            "[place.querySelector('#d').open, place.querySelector('#d').textContent]",
            [True, "su"],
            id="open details",
        ),
        pytest.param(
            "<div><p id=k data-keep>old</p><p>a</p></div>",
            "<div><p>b</p><p>c</p></div>",
            "place.querySelector('#k').textContent = 'mine';",
            "[...place.children].map((node) => node.textContent).sort()",
            ["b", "c", "mine"],
            id="what is kept",
        ),
        pytest.param(
            "<div><p id=k data-keep class=x>old</p></div>",
            "<div><b>new</b><p id=k data-keep class=y>new</p></div>",
            "",
            "place.textContent + place.lastChild.className",
            "newoldx",
            id="what is kept and drawn again",
        ),
        pytest.param(
            "<div><label><input type=checkbox id=c></label></div>",
            "<div><label><input type=checkbox id=c></label><i></i></div>",
            "place.querySelector('#c').click();",
            "place.querySelector('#c').checked",
            True,
            id="a checked box",
        ),
    ],
)
async def test_what_the_reader_does_stays(
    open_page: Page, tmp_path: Path, old: str, new: str, before: str, after: str, wanted: object
) -> None:
    async with hub_inside(Hub(state_dir=tmp_path / "state")) as url:
        await open_page.open(url)
        assert await morphed(open_page, old, new, before, after) == wanted
        await open_page.leave()
