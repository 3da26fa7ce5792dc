// Keeps the page fresh. The server draws; this fetches what was drawn and puts it in.
//
// The hub says by one `hub:page` that something is newer, and no more before that was fetched. So a slow or hidden page
// falls behind nothing: after a gap, a restart or an hour in the background it asks for what is newer than it has.

import { write } from "./ages.js";
import { end, notice, sweep } from "./bars.js";
import { mark, newest } from "./gaps.js";
import { listen } from "./keys.js";
import { morph } from "./morph.js";
import { areWanted, tell } from "./notices.js";
import { hold, send } from "./sending.js";
import { lead, settle } from "./settling.js";

const FIRST = 0.5; // seconds before the first try again
const LONGEST = 15;
const PATIENCE = 10; // seconds for a connection, and for an answer
const SILENCE = 25; // seconds without a word, though the hub speaks every ten: then the connection goes nowhere
const GLANCE = 2; // seconds between two looks at what waits, while nobody looks here
const STEADY = 5; // seconds after which a connection counts as good again
// A browser's session ends with its hub: then there is no way back but by a new link.
const GO_ON =
  document.body.dataset.link
    ? `This page comes back by itself; if the hub was stopped, start it, and open the link that “${document.body.dataset.link}” prints.`
    : "If the hub was stopped, start it with “hub”: this page comes back by itself.";
const FOR_GOOD = [401, 403, 421]; // statuses with which the hub says that it does not let this page in

const byId = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const body = document.body;
const root = body.dataset.root ?? ""; // the way home from an address that a form was sent to
const home = new URL(root || location.href, location.href);
home.hash = "";
let socket = null;
let tries = 0;
let timer = 0;
let opened = 0;
let heard = 0;
let goneSince = null;
let told = null; // the last notice that has not been fetched
let fetching = false;
let glanced = 0;
let epoch = body.dataset.cursor.split(":")[0];
let title = "";

// ---- the connection

function connect() {
  clearTimeout(timer);
  if (socket) return;
  if (!goneSince) state("joining", "Connecting");
  const url = new URL("./ws?page=1", home);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = (socket = new WebSocket(url));
  opened = heard = performance.now();
  timer = setTimeout(() => lost(mine), PATIENCE * 1000);
  mine.onmessage = ({ data }) => {
    const payload = JSON.parse(data).payload;
    heard = performance.now();
    if (payload.event !== "hub:page") return;
    clearTimeout(timer);
    told = payload.data;
    if (document.hidden) setTimeout(refresh, GLANCE * 1000);
    else refresh();
  };
  mine.onclose = () => lost(mine);
}

function lost(mine) {
  if (socket !== mine) return;
  mine.onmessage = mine.onclose = null;
  mine.close();
  socket = told = null;
  if (performance.now() - opened > STEADY * 1000) tries = 0;
  const most = Math.min(LONGEST, FIRST * 2 ** Math.min(++tries, 10)); // full jitter: many pages do not come back in step
  clearTimeout(timer);
  timer = setTimeout(connect, (FIRST + Math.random() * (most - FIRST)) * 1000);
  gone();
  if (heard === opened) ask();
}

/** Say since when nothing here need be true any more. */
function gone() {
  if (goneSince) return;
  goneSince = new Date();
  const since = document.createElement("time");
  since.dateTime = goneSince.toISOString();
  since.dataset.as = "clock";
  const why = document.createElement("span");
  why.textContent = GO_ON;
  byId("gone").replaceChildren("✕ Not connected since ", since, ". What stands here is how things were then. ", why);
  write(byId("gone"));
  byId("gone").hidden = false;
  state("gone", "Not connected");
  body.toggleAttribute("data-gone", true);
  hold(true);
  head();
}

/**
 * Ask the hub whether it refuses this page, and say why, in the words that stand on the page with which it refuses a
 * browser: a WebSocket that was refused tells nobody.
 */
async function ask() {
  const { status, response } = await requested(new URL("./?panel=summary", home), "text/html");
  const why = document.querySelector("#gone span");
  if (!why || !status) return;
  const words = FOR_GOOD.includes(status) ? all("main p", response ?? document.createDocumentFragment()) : [];
  const said = words.map((node) => node.textContent.trim()).join(" ");
  why.textContent = said ? `The hub does not let this page in any more: ${said}` : GO_ON;
}

function live() {
  if (goneSince) {
    end("again");
    hold(false);
  }
  goneSince = null;
  byId("gone").hidden = true;
  state("live", "Live");
  body.removeAttribute("data-gone");
  head();
}

function state(name, words) {
  const node = byId("connection");
  if (node.dataset.state === name) return;
  node.dataset.state = name;
  node.textContent = words;
}

// ---- what is newer

/** Whether this page shows some panels only, and says so. */
const isOnly = () => body.hasAttribute("data-only");

/** The panels that the notice has newer ones of, or all that this page shows; not those that are paused. */
function newer(panels) {
  const isPaused = byId("pause")?.checked || document.querySelector("#events details[open]");
  return all("[data-panel][data-version]")
    .filter(({ dataset: { panel, version } }) => isOnly() || (panels[panel] && panels[panel] !== version))
    .map(({ dataset: { panel } }) => panel)
    .filter((panel) => panel !== "events" || !isPaused);
}

/** Fetch what is newer. One at a time, and none while nobody looks: the hub waits. */
async function refresh() {
  if (document.hidden) return glance();
  if (!told || fetching) return;
  const { panels, viewer, cursor } = told;
  told = null;
  fetching = true;
  const isAside = !document.querySelector("main[data-live], main [data-panel]"); // of the hub only its head is shown
  const url = new URL(isAside ? "./" : home, home);
  if (!document.querySelector("main[data-live]")) {
    url.searchParams.delete("panel");
    for (const panel of newer(panels)) url.searchParams.append("panel", panel);
    if (!url.searchParams.has("panel")) url.searchParams.set("panel", "summary");
    if (isOnly()) url.searchParams.set("only", "1");
  }
  url.searchParams.set("viewer", viewer);
  const fresh = await fetched(url);
  fetching = false;
  if (!fresh) {
    if (socket) lost(socket);
    return;
  }
  if (cursor.split(":")[0] !== epoch) {
    notice("history", "The hub began a new history: what it no longer knows is not shown.");
  }
  epoch = cursor.split(":")[0];
  put(fresh);
  live();
  refresh();
}

/**
 * While nobody looks: see what waits, now and then, if the reader wants a notice of it. The rest is fetched when somebody
 * looks again: until then `told` stays.
 */
async function glance() {
  const waiting = document.querySelector("[data-panel=waiting]");
  if (!told || told === glanced || fetching || !waiting || !areWanted()) return;
  const { panels, viewer } = (glanced = told);
  const url = new URL("./", home);
  url.searchParams.set("panel", panels.waiting && panels.waiting !== waiting.dataset.version ? "waiting" : "summary");
  url.searchParams.set("viewer", viewer);
  fetching = true;
  const fresh = await fetched(url);
  fetching = false;
  if (!fresh) return void (socket && lost(socket));
  put(fresh);
  live();
  if (!document.hidden) refresh();
}

/** A page as a document, parsed without running anything; null if it does not come. */
async function fetched(url) {
  const { status, response } = await requested(url, "*/*");
  return status === 200 ? response : null;
}

/** The request for a document when it is over; its status is 0 if nobody has answered. */
function requested(url, accept) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", url);
    request.setRequestHeader("accept", accept);
    request.responseType = "document";
    request.timeout = PATIENCE * 1000;
    request.onloadend = () => resolve(request);
    request.send();
  });
}

function put(fresh) {
  write(fresh);
  if (root) for (const link of all("[href^='./']", fresh)) link.setAttribute("href", root + link.getAttribute("href"));
  const before = new Set(all("#waiting [data-row]").map(({ id }) => id));
  const last = newest();
  const rows = all("[data-row]");
  const at = rows.indexOf(document.activeElement?.closest("[data-row]"));
  for (const node of all("[data-panel], main[data-live]", fresh)) {
    const { panel } = node.dataset;
    const old = document.querySelector(panel ? `[data-panel="${CSS.escape(panel)}"]` : "main[data-live]");
    if (old) morph(old, node);
  }
  if (at >= 0 && !rows[at].isConnected) {
    const stays = (row) => row.isConnected;
    lead(rows.slice(at).find(stays) ?? rows.slice(0, at).findLast(stays) ?? byId("main"));
  }
  if (fresh.querySelector("#events")) mark(last);
  sweep();
  const reader = fresh.getElementById("reader"); // what one may do here can be another now
  if (reader) morph(byId("reader"), reader);
  body.dataset.trust = fresh.body.dataset.trust;
  body.dataset.cursor = fresh.body.dataset.cursor;
  const added = all("#waiting [data-row]").filter(({ id }) => !before.has(id));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    for (const row of added) row.animate({ backgroundColor: ["var(--mark)", "transparent"] }, 2000);
  }
  tell(added);
  if (added.length) say(`${added.length} more waiting: ${added[0].querySelector(".what").textContent}`);
}

// ---- what is told beside that

const say = (text) => (byId("news").textContent = text);

/** The title counts what waits for the reader, the icon has its colour. */
function head() {
  const { need, failed, host } = document.querySelector(".strip").dataset;
  title ||= document.title.replace(/^\(\d+\) /, "");
  document.title = goneSince ? "✕ hub" : (Number(need) ? `(${need}) ` : "") + title;
  const colour = goneSince ? "%23ac3027" : Number(need) ? "%23d99a1e" : Number(failed) ? "%23ac3027" : "%232a7350";
  const icon = byId("icon");
  const href = icon.href.replace(/%23[0-9a-f]{6}/, colour);
  if (icon.href !== href) icon.href = href;
}

// ---- when

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  heard = performance.now();
  connect();
  refresh();
});

setInterval(() => {
  if (!document.hidden && socket && performance.now() - heard > SILENCE * 1000) lost(socket);
  if (!goneSince) write(document);
}, 1000);

write(document);
settle();
listen(say);
send(say, () => !goneSince);
connect();
