// Keeps the page fresh. The server has drawn all of it; this goes on from the cursor in <body data-cursor>.
//
// Event data only ever becomes text or the value of a harmless attribute, so markup in it stays text.

import { HubClient, maps, matches, parseCursor } from "./stream.js";

const CLOSED = new Set(["stopped", "succeeded", "failed", "cancelled", "passed", "expired", "vetoed"]);
const OPTIONS = ["approve", "reject", "abstain"];
const OF_A_VOTE = ["topic", "threshold", "eligible", "deadline", "status"];
const DRAW_EVERY = 60; // milliseconds
const REFRESH_EVERY = 5000;
const REFRESH_AFTER_EVENT = 1000;
const PATIENCE = 5000;

const all = (root, selector) => [...root.querySelectorAll(selector)];

// ---- formats: the other half of hub/web/fields.py ---------------------------------------------------------------

const isNumber = (value) => typeof value === "number";
const group = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");
const two = (value) => String(value).padStart(2, "0");

function text(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (isNumber(value)) return number(value);
  return typeof value === "string" ? value : "";
}

function number(value) {
  if (!isNumber(value)) return text(value);
  if (Math.abs(value) >= 2 ** 53) return value.toExponential(6);
  const sign = value < 0 ? "-" : "";
  if (Number.isInteger(value)) return sign + group(String(Math.abs(value)));
  const hundredths = Math.floor(Math.abs(value) * 100 + 0.5);
  const rest = hundredths % 100;
  const decimals = rest ? `.${two(rest)}`.replace(/0$/, "") : "";
  return (hundredths ? sign : "") + group(String(Math.floor(hundredths / 100))) + decimals;
}

function size(value) {
  if (!isNumber(value) || value < 0) return text(value);
  for (const [unit, power] of [["GiB", 3], ["MiB", 2], ["KiB", 1]]) {
    if (value < 1024 ** power) continue;
    const tenths = Math.floor((value * 10) / 1024 ** power + 0.5);
    return `${Math.floor(tenths / 10)}.${tenths % 10} ${unit}`;
  }
  return `${Math.floor(value)} B`;
}

function duration(value) {
  if (!isNumber(value) || value < 0) return text(value);
  if (value < 1000) return `${Math.floor(value)} ms`;
  const seconds = Math.floor(value / 1000);
  for (const [unit, length, lesser, part] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (seconds >= length) {
      return `${Math.floor(seconds / length)} ${unit} ${Math.floor((seconds % length) / part)} ${lesser}`;
    }
  }
  return `${seconds} s`;
}

function clock(then) {
  return [then.getHours(), then.getMinutes(), then.getSeconds()].map(two).join(":");
}

function moment(value) {
  const shape = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;
  if (typeof value !== "string" || !shape.test(value)) return text(value);
  const then = new Date(value);
  if (Number.isNaN(then.getTime())) return value;
  if (then.toDateString() === new Date().toDateString()) return clock(then);
  const date = [String(then.getFullYear()).padStart(4, "0"), two(then.getMonth() + 1), two(then.getDate())];
  return `${date.join("-")} ${two(then.getHours())}:${two(then.getMinutes())}`;
}

function outline(value) {
  if (value instanceof Map) return [...value.keys()].sort().map((key) => `${key}: ${outline(value.get(key))}`).join(", ");
  return Array.isArray(value) ? value.map(outline).join(", ") : text(value);
}

function plain(value) {
  if (value === true) return "";
  if (!isNumber(value)) return typeof value === "string" ? value : null;
  return Math.abs(value) >= 2 ** 53 ? value.toExponential(6) : String(Math.floor(value * 10000 + 0.5) / 10000);
}

const FORMATS = new Map([
  ["text", text],
  ["number", number],
  ["percent", (value) => (isNumber(value) ? `${Math.floor(value)} %` : text(value))],
  ["size", size],
  ["duration", duration],
  ["moment", moment],
  ["words", (value) => text(value).replaceAll("_", " ")],
  ["stale", (value) => (value === true ? "stale" : "")],
  ["outline", outline],
  ["plain", (value) => plain(value) ?? ""],
]);

// ---- rows ---------------------------------------------------------------------------------------------------------

/** Write a row's values into its elements; with `partly`, only those that `values` has. */
function fill(row, values, partly = false) {
  if (!partly) all(row, "[data-each]").forEach((list) => all(list, ":scope > :not(template)").forEach((old) => old.remove()));
  for (const node of [row, ...all(row, "[data-field], [data-set]")]) {
    const { field, format, before = "", after = "", set = "" } = node.dataset;
    if (field !== undefined && !(partly && !values.has(field))) {
      const shown = FORMATS.get(format)(values.get(field));
      node.textContent = shown && before + shown + after;
      node.hidden = !shown;
    }
    for (const pair of set.split(" ").filter(Boolean)) {
      const [attribute, name] = pair.split(":");
      if (partly && !values.has(name)) continue;
      const value = plain(values.get(name));
      if (value === null) node.removeAttribute(attribute);
      else node.setAttribute(attribute, value);
    }
  }
  if (!partly) all(row, "[data-each]").forEach((list) => list.append(...entries(list, values.get(list.dataset.each))));
}

function entries(list, value) {
  if (!(value instanceof Map)) return [];
  return [...value.keys()].sort().map((key) => {
    const entry = copy(list.querySelector(":scope > template"));
    fill(entry, new Map([["key", key], ["value", value.get(key)]]));
    return entry;
  });
}

/** A new row from the template that the server drew with the same macro as the real rows. */
function copy(template) {
  return document.importNode(template.content, true).firstElementChild;
}

/** One list of rows on the page: what changed since it was last drawn, by key. */
class Rows {
  #changed = new Map();
  #folds = new Map();
  #newest = new Map(); // the number of the newest event of each key that came while the page was open

  constructor(list) {
    this.list = list;
    this.kind = list.dataset.rows;
    this.event = list.dataset.event;
    this.keyField = list.dataset.keyField;
    this.limit = Number(list.dataset.limit);
    this.template = list.querySelector(":scope > template");
    this.empties = all(document, "[data-empty]").filter((node) => node.dataset.empty === this.event);
    this.rows = new Map(all(list, ":scope > li").map((row) => [row.dataset.key, row]));
  }

  take(event) {
    const data = event.get("payload").get("data");
    if (this.kind === "log") {
      const key = String(parseCursor(event.get("cursor")).seq);
      this.#changed.set(key, new Map([...data, ["key", key], ["timestamp", event.get("timestamp")]]));
      if (this.#changed.size > this.limit) this.#changed.delete(this.#changed.keys().next().value);
      return;
    }
    const key = this.keyField ? String(data.get(this.keyField)) : this.event.split(":")[0];
    const values = this.kind === "votes" ? this.#count(key, data) : new Map(data);
    values.set("key", key).set("timestamp", event.get("timestamp")).set("stale", false);
    values.set("closed", CLOSED.has(values.get("status")));
    this.#changed.set(key, values);
    this.#newest.set(key, parseCursor(event.get("cursor")).seq);
  }

  /** `hub:stale`: mark one item, unless a newer event of it has come: the end of a lease can be late. */
  age(key, seq) {
    if ((this.#newest.get(key) ?? 0) > seq) return;
    const waiting = this.#changed.get(key);
    if (waiting) waiting.set("stale", true);
    else if (this.rows.has(key)) fill(this.rows.get(key), new Map([["stale", true]]), true);
  }

  /** The same fold as on the server: an agent's newest option counts, a `votes` mapping replaces all before it. */
  #count(key, data) {
    if (!this.#folds.has(key)) {
      const drawn = this.rows.get(key)?.dataset.fold;
      this.#folds.set(key, drawn ? maps(JSON.parse(drawn)) : new Map([["ballots", new Map()]]));
    }
    const vote = this.#folds.get(key);
    for (const name of OF_A_VOTE) if (data.get(name) != null) vote.set(name, data.get(name));
    if (data.get("votes") instanceof Map) vote.set("ballots", new Map(data.get("votes")));
    const [agent, option] = [data.get("agent"), data.get("option")];
    if (typeof agent === "string" && typeof option === "string") vote.get("ballots").set(agent, option);
    const chosen = [...vote.get("ballots").values()];
    const counts = OPTIONS.map((name) => [name, chosen.filter((one) => one === name).length]);
    return new Map([...vote, ...counts, ["cast", chosen.length]]);
  }

  draw() {
    if (!this.#changed.size) return;
    for (const [key, values] of this.#changed) {
      if (this.kind === "log" && this.rows.has(key)) continue;
      const row = this.rows.get(key) ?? copy(this.template);
      this.rows.set(key, row);
      fill(row, values);
      this.#place(row);
    }
    this.#changed.clear();
    for (const row of all(this.list, ":scope > li").slice(this.limit)) {
      row.remove();
      this.rows.delete(row.dataset.key);
      this.#folds.delete(row.dataset.key);
    }
    this.list.hidden = !this.rows.size;
    this.empties.forEach((node) => (node.hidden = this.rows.size > 0));
  }

  /** Put a row where the server would: open ones by key, then closed ones, newest first; a log newest first. */
  #place(row) {
    const others = all(this.list, ":scope > li").filter((other) => other !== row);
    const next = this.kind === "log" ? others[0] : others.find((other) => comesBefore(row, other));
    if (!row.isConnected || row.nextElementSibling !== (next ?? null)) this.list.insertBefore(row, next ?? null);
  }
}

function comesBefore(row, other) {
  const [closed, otherClosed] = [row.dataset.closed !== undefined, other.dataset.closed !== undefined];
  if (closed !== otherClosed) return otherClosed;
  if (closed && row.dataset.time !== other.dataset.time) return row.dataset.time > other.dataset.time;
  return row.dataset.key < other.dataset.key;
}

// ---- the page -----------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);
const connection = byId("connection");
const retry = byId("retry");
const notice = byId("notice");

let lists = all(document, "[data-rows]").map((list) => new Rows(list));
let shown = parseCursor(document.body.dataset.cursor);
let behind = false; // the page is known to lack something
let held = null; // events that arrive while the page is loaded again
let gaps = 0;
let drawing = 0;
let goneSince = null;
let silentSince = null;
let refused = 0;

const client = new HubClient({
  url: new URL("ws", document.baseURI),
  topics: document.body.dataset.topics.split(","),
  after: document.body.dataset.cursor,
});

client.addEventListener("event", ({ detail }) => {
  if (held) held.push(detail);
  else if (!behind) apply(detail);
});

client.addEventListener("gap", ({ detail }) => {
  const count = detail.get("count");
  const what = count === null ? "Events" : `${number(count)} ${count === 1 ? "event" : "events"}`;
  const were = count === 1 ? "was" : "were";
  const why = new Map([
    ["slow", `${what} ${were} missed, because this page read too slowly.`],
    ["expired", `${what} ${were} missed while this page was away, and ${were} no longer kept.`],
    ["epoch", "The hub began a new history. What happened in between is not known here."],
  ]).get(detail.get("reason")) ?? `${what} ${were} missed.`;
  gaps += 1;
  behind = true;
  reload(why);
});

client.addEventListener("state", ({ detail }) => {
  if (detail.name === "live") {
    goneSince = null;
    refused = 0;
    refreshSoon(REFRESH_AFTER_EVENT);
  } else {
    goneSince ??= new Date();
    if (detail.refused && ++refused === 2) startAgain();
  }
  tell(detail);
});

/** Say how fresh the page is, and nothing better than that. */
function tell({ name = "live", delay = 0 } = {}) {
  const starting = connection.dataset.state === "still" && name === "connecting";
  const since = goneSince ?? silentSince;
  let words = starting ? "Connecting…" : "Live";
  if (since && !starting) {
    const what = goneSince ? "Not connected" : "No answer from the hub";
    words = `${what} since ${clock(since)}: this is what was true then.`;
  }
  if (!starting) connection.dataset.state = since ? "gone" : "live";
  if (connection.textContent !== words) connection.textContent = words;
  retry.textContent = name === "waiting" ? `Next try within ${Math.ceil(delay)} s.` : "";
}

function apply(event) {
  const at = parseCursor(event.get("cursor"));
  if (at.epoch === shown.epoch && at.seq <= shown.seq) return;
  shown = at;
  const name = event.get("payload").get("event");
  const data = event.get("payload").get("data");
  if (name === "hub:stale") lists.find((rows) => rows.event === data.get("event"))?.age(data.get("key"), data.get("seq"));
  const rows = lists.find((rows) => rows.event === name);
  rows?.take(event);
  if (rows) drawing ||= setTimeout(draw, DRAW_EVERY);
  for (const panel of all(document, "[data-panel]")) {
    // A panel without rows of its own is drawn by the server alone.
    if (panel.querySelector("[data-rows]") || !panel.dataset.topics) continue;
    if (panel.dataset.topics.split(",").some((pattern) => matches(pattern, name))) refreshSoon(REFRESH_AFTER_EVENT);
  }
}

function draw() {
  drawing = 0;
  lists.forEach((rows) => rows.draw());
}

/** The page as the server draws it now; null if it does not answer. */
function fetchPage() {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", new URL("./", document.baseURI));
    request.responseType = "document"; // parsed without scripts, and no string of ours becomes markup
    request.timeout = PATIENCE;
    request.onload = () => resolve(request.status === 200 && request.response?.body.dataset.cursor ? request.response : null);
    request.onerror = request.ontimeout = request.onabort = () => resolve(null);
    request.send();
  });
}

/** After a gap: take every panel from the server again, and go on behind its cursor. */
async function reload(why = "") {
  if (why) say(why);
  if (held) return;
  let fresh, before;
  do {
    before = gaps; // a further gap while the page was on its way may be missing from it
    held = [];
    fresh = await fetchPage();
  } while (fresh && before !== gaps);
  const waiting = held;
  held = null;
  if (!fresh) return; // still behind: tried again with the next refresh
  behind = false;
  adopt(fresh);
  waiting.forEach(apply);
  say(`${notice.textContent} Everything shown was loaded again at ${clock(new Date())}.`);
}

/** The hub did not let the page in twice: if it answers all the same, go on from what it shows now. */
async function startAgain() {
  const fresh = await fetchPage();
  refused = 0;
  if (!fresh || !goneSince) return;
  adopt(fresh);
  client.moveTo(fresh.body.dataset.cursor);
}

function adopt(fresh) {
  swap(fresh, "[data-panel]", "panel");
  lists = all(document, "[data-rows]").map((list) => new Rows(list));
  shown = parseCursor(fresh.body.dataset.cursor);
  bindVerify();
}

function say(sentence) {
  notice.hidden = false;
  notice.textContent = sentence;
}

/** Put the nodes that the server drew in the place of those that are shown. */
function swap(fresh, selector, mark) {
  const drawn = new Map(all(fresh, selector).map((node) => [node.dataset[mark], node]));
  for (const old of all(document, selector)) {
    const node = drawn.get(old.dataset[mark]);
    const imported = node && localTimes(document.importNode(node, true));
    if (imported && !old.isEqualNode(imported)) old.replaceWith(imported);
  }
}

/** Times that the server wrote by its own clock, by the reader's. */
function localTimes(root) {
  for (const node of all(root, "time[datetime]")) node.textContent = moment(node.dateTime);
  return root;
}

// ---- what is no event: figures and the audit log -------------------------------------------------------------------

let refreshing = false;
let refreshTimer = 0;
let refreshDue = Infinity;

/** Ask for the figures again in so many milliseconds, or sooner if that was planned already. */
function refreshSoon(milliseconds) {
  const due = performance.now() + milliseconds;
  if (due >= refreshDue) return;
  refreshDue = due;
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(refresh, milliseconds);
}

async function refresh() {
  clearTimeout(refreshTimer);
  refreshDue = Infinity;
  if (document.hidden || goneSince) return;
  if (refreshing) return refreshSoon(REFRESH_AFTER_EVENT);
  if (behind) return void reload().then(() => refreshSoon(REFRESH_EVERY));
  refreshing = true;
  const asked = new Date();
  const fresh = await fetchPage();
  refreshing = false;
  if (fresh) swap(fresh, "[data-refresh]", "refresh");
  silentSince = fresh ? null : (silentSince ?? asked);
  if (!goneSince) tell();
  refreshSoon(REFRESH_EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  client.connect();
  refresh();
});

// ---- the one command of this page ----------------------------------------------------------------------------------

function bindVerify() {
  const [button, verdict] = [byId("verify"), byId("verdict")];
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    verdict.textContent = "Reading every record…";
    try {
      const answer = await client.call("audit:verify");
      const records = `${number(answer.get("records"))} records`;
      const where = answer.get("broken_at") == null ? "" : ` at record ${answer.get("broken_at")}`;
      verdict.textContent = answer.get("valid")
        ? `${records} read, all intact.`
        : `Broken${where}: ${text(answer.get("reason"))}`;
    } catch (error) {
      verdict.textContent = error.message;
    }
    button.disabled = false;
    refreshSoon(0);
  });
}

localTimes(document);
bindVerify();
client.connect();
