// The page's client of the hub: one WebSocket that comes back by itself and goes on where it was.
//
// What arrives is turned into Maps before anybody reads it: a key such as "__proto__" in somebody's event is then a key
// like any other and cannot reach the prototypes of this page (prototype pollution).

const FIRST = 0.5; // seconds before the first try again
const LONGEST = 30;
const STEADY = 5; // seconds after which a connection counts as good again
const CONNECT = 10; // seconds for a connection and its handshake
const QUIET = 15; // seconds without a word after which the hub is asked for one; it has as long to answer

/** Parsed JSON with a Map in place of every object. */
export function maps(value) {
  if (Array.isArray(value)) return value.map(maps);
  if (value === null || typeof value !== "object") return value;
  return new Map(Object.entries(value).map(([key, member]) => [key, maps(member)]));
}

/** Whether a pattern matches an event name: `*` is one segment, as the last one it is one or more. */
export function matches(pattern, name) {
  if (pattern === "*") return true;
  const wanted = pattern.split(":");
  const given = name.split(":");
  const open = wanted.at(-1) === "*";
  if (open ? given.length < wanted.length : given.length !== wanted.length) return false;
  return wanted.every((segment, i) => segment === "*" || segment === given[i]);
}

/** A cursor's text as `{epoch, seq}`. */
export function parseCursor(text) {
  const at = text.lastIndexOf(":");
  return { epoch: text.slice(0, at), seq: Number(text.slice(at + 1)) };
}

/**
 * A client of the hub. It emits CustomEvents:
 *
 * - `event`, detail: the envelope as a Map. In the hub's order, each once.
 * - `gap`, detail: the data of `hub:gap` as a Map. In the place of what is missing.
 * - `state`, detail: `{name: "connecting" | "live" | "waiting", delay?: seconds, refused?: boolean}`. `refused`: the
 *   hub did not let this connection in.
 */
export class HubClient extends EventTarget {
  #url;
  #socket = null;
  #position;
  #tries = 0;
  #timer = 0;
  #watch = 0;
  #heard = false; // since it was looked at last
  #asked = false;
  #calls = new Map();
  #lastCall = 0;
  #closed = false;

  /** `url`: where `/ws` is; `topics`: patterns; `after`: the cursor to go on behind. */
  constructor({ url, topics, after }) {
    super();
    this.#url = new URL(url);
    this.#url.protocol = this.#url.protocol === "https:" || this.#url.protocol === "wss:" ? "wss:" : "ws:";
    this.#url.searchParams.set("topics", topics.join(","));
    this.#position = after;
  }

  /** The cursor up to which nothing is missing. */
  get position() {
    return this.#position;
  }

  /** Go on behind this cursor from the next connection on: what the page shows is already that far. */
  moveTo(cursor) {
    this.#position = cursor;
  }

  /** Connect now, without waiting for the next try. */
  connect() {
    clearTimeout(this.#timer);
    if (this.#socket || this.#closed) return;
    this.#url.searchParams.set("after", this.#position);
    this.#tell("connecting");
    const socket = (this.#socket = new WebSocket(this.#url));
    let opened = 0;
    const lost = () => {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      this.#lost(opened);
    };
    this.#timer = setTimeout(lost, CONNECT * 1000);
    socket.onopen = () => {
      opened = performance.now();
      clearTimeout(this.#timer);
      this.#heard = true;
      this.#watch = setInterval(() => this.#look(lost), QUIET * 1000);
      this.#tell("live");
    };
    socket.onmessage = ({ data }) => {
      this.#heard = true;
      this.#received(maps(JSON.parse(data)));
    };
    socket.onclose = lost;
  }

  /** A connection that goes nowhere says nothing of it: one that does not answer is left. */
  #look(lost) {
    if (!this.#heard && this.#asked) return lost();
    this.#asked = !this.#heard;
    this.#heard = false;
    if (this.#asked) this.call("hub:ping").catch(() => {});
  }

  /** Leave for good. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#socket?.close(1000);
  }

  /** Call a command; resolves to its response, rejects with an Error that carries the hub's `code`. */
  call(command, args = {}) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Error("The hub is not connected."));
      const id = `page-${++this.#lastCall}`;
      this.#calls.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ type: "command", id, payload: { command, args } }));
    });
  }

  #received(frame) {
    if (frame.get("type") === "event") return this.#happened(frame);
    const call = this.#calls.get(frame.get("id"));
    this.#calls.delete(frame.get("id"));
    const payload = frame.get("payload");
    if (frame.get("type") === "response") return call?.resolve(payload);
    call?.reject(Object.assign(new Error(payload.get("error")), { code: payload.get("code") }));
  }

  #happened(frame) {
    const payload = frame.get("payload");
    if (frame.has("cursor")) {
      this.#position = frame.get("cursor");
      this.#emit("event", frame);
    } else if (payload.get("event") === "hub:mark") {
      this.#position = payload.get("data").get("cursor");
    } else if (payload.get("event") === "hub:gap") {
      // `before` is the first number from which nothing is missing, so the one in front of it is where we are.
      const { epoch, seq } = parseCursor(payload.get("data").get("before"));
      this.#position = `${epoch}:${seq - 1}`;
      this.#emit("gap", payload.get("data"));
    }
  }

  #lost(opened) {
    this.#socket = null;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    for (const { reject } of this.#calls.values()) reject(new Error("The connection was lost."));
    this.#calls.clear();
    if (this.#closed) return;
    if (opened && performance.now() - opened > STEADY * 1000) this.#tries = 0;
    // Full jitter: a thousand pages that lost the same hub do not come back in step.
    const most = Math.min(LONGEST, FIRST * 2 ** Math.min(++this.#tries, 10));
    const delay = FIRST + Math.random() * (most - FIRST);
    this.#timer = setTimeout(() => this.connect(), delay * 1000);
    this.#tell("waiting", { delay, refused: !opened });
  }

  #tell(name, more = {}) {
    this.#emit("state", { name, ...more });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
