// The connection to a hub: one at a time, looked after while it is silent, and come back by itself.

import { refusal } from "./frames.js";

const CONNECT = 10; // seconds for a connection and its handshake
const FIRST_DELAY = 0.5; // seconds below which the wait before the first try again is drawn
const LONGEST_DELAY = 30;
const STEADY = 5; // seconds after which a connection counts as good
const NOT_ALLOWED = 1008; // a close code: coming back cannot help
const FOR_GOOD = [401, 403, 421]; // statuses: coming back cannot help either
const NONE =
  "There is no WebSocket here: take Node 22 or newer, start Node 20 with --experimental-websocket, or give `connect`.";

const seconds = () => performance.now() / 1000;
const delayBelow = (ceiling) => Math.random() * ceiling; // full jitter: a thousand clients do not come back as one

export class Link {
  #url;
  #open;
  #isOwn; // the way to open a connection is the program's
  #heartbeat;
  #on;
  #opened = 0;
  #heard = 0;
  #asked = 0; // since when a sign of life is waited for
  #tries = 0;
  #retry = 0;
  #watch = 0;
  #sign = 0;
  #isOver = false;
  #wake = () => globalThis.document?.hidden || this.#look(true);
  /** The connection that there is, or null. */
  socket = null;

  /**
   * `on` is told what happens: `state(name, delay)`; `opened(socket)`; `frame(text)`; `silent()`, to ask for a sign of
   * life; `left()`, when a connection has ended; `refused(error)`, when coming back cannot help.
   */
  constructor(url, { connect, heartbeat }, on) {
    if (!connect && !globalThis.WebSocket) throw new Error(NONE);
    this.#url = url;
    this.#open = connect ?? ((address) => new WebSocket(address));
    this.#isOwn = connect !== undefined;
    this.#heartbeat = heartbeat;
    this.#on = on;
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  #connect() {
    this.#on.state("connecting");
    this.#asked = this.#opened = 0;
    const socket = (this.socket = this.#open(this.#url));
    const mine = (f) => (event) => socket === this.socket && f(event);
    this.#retry = setTimeout(mine(() => this.lost()), CONNECT * 1000);
    socket.onopen = mine(() => this.#begin(socket));
    socket.onmessage = mine(({ data }) => {
      this.#heard = seconds();
      this.#on.frame(data);
    });
    socket.onclose = mine(({ code, reason }) => {
      if (code === NOT_ALLOWED) return this.#on.refused(refusal("forbidden", `The hub ended this: ${reason}.`));
      this.#failed();
    });
    // Where a handshake has failed some say nothing else (Node 20); all others say it again, when nobody listens any more.
    socket.onerror = mine(() => this.#opened || this.#failed());
  }

  #failed() {
    if (!this.#opened) this.#ask();
    this.lost();
  }

  /** Ask the hub why it has refused a handshake: a WebSocket tells nobody. What would be refused again is the end. */
  async #ask() {
    if (this.#isOwn) return; // it may have a token, which this has not
    const address = new URL(this.#url);
    address.protocol = address.protocol.replace("ws", "http");
    try {
      const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(CONNECT * 1000) });
      const { error, code } = FOR_GOOD.includes(answer.status) ? await answer.json() : {};
      if (error && code && !this.#opened) this.#on.refused(refusal("forbidden", error));
    } catch {} // nobody answers, or no hub does, or this page may not hear it: perhaps the next time
  }

  #begin(socket) {
    clearTimeout(this.#retry);
    this.#opened = this.#heard = seconds();
    this.#watch = setInterval(() => this.#look(), (this.#heartbeat * 1000) / 6);
    this.#on.opened(socket);
  }

  /** Ask for a sign of life when it has been silent, or at once; leave it when there is none. */
  #look(atOnce = false) {
    if (!this.socket && !this.#isOver) return this.#again();
    if (!this.#opened) return;
    const now = seconds();
    if (this.#asked && this.#heard >= this.#asked) this.#asked = 0;
    if (this.#asked && now - this.#asked > this.#heartbeat / 2) return this.lost();
    if (this.#asked || now - this.#heard < (atOnce ? 1 : this.#heartbeat)) return;
    this.#asked = now;
    this.#on.silent();
    // Timers of a page that nobody sees may come once a minute; whoever looks at it again need not wait for them.
    this.#sign = setTimeout(() => this.#look(), this.#heartbeat * 500 + 100);
  }

  #again() {
    clearTimeout(this.#retry);
    if (this.socket || this.#isOver) return;
    try {
      this.#connect();
    } catch {
      this.lost(); // what opens a connection has thrown: perhaps not the next time
    }
  }

  /** Let go of a connection that is of no use any more, whatever the other side thinks, and come back. */
  lost() {
    this.#leave();
    const steady = this.#opened && seconds() - this.#opened > STEADY;
    this.#tries = steady ? 0 : this.#tries;
    const delay = delayBelow(Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(this.#tries++, 10)));
    this.#retry = setTimeout(() => this.#again(), delay * 1000);
    this.#on.state("waiting", delay);
  }

  /** Leave for good. */
  end() {
    this.#isOver = true;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#leave();
  }

  #leave() {
    const socket = this.socket;
    this.socket = null;
    clearTimeout(this.#retry);
    clearTimeout(this.#sign);
    clearInterval(this.#watch);
    socket?.close();
    this.#on.left();
  }
}
