// The client of a hub, for browsers; also for Node 22, Deno and Bun, which have the same WebSocket.
//
// One connection carries everything: events, calls, and the commands that this program serves. It comes back by itself,
// goes on behind the last event that it had, sends again what may be sent twice, and never has two connections. Nothing
// is missing without a Gap, nothing comes twice. The types stand in hub.d.ts.

import { Gap, HubError, Received, justBefore, newId, refusal, written } from "./frames.js";

export { Gap, HubError, Received };

const AT_ONCE = 200; // calls in flight; the hub takes 256
const MOST_WAITING = 1000; // calls that wait to be sent; what is more is refused
const READ_AHEAD = 1024 * 1024; // characters of events read and not yet taken; then the hub keeps the rest
const TRIES = 10; // of a call that the hub has not let begin
const CONNECT = 10; // seconds for a connection and its handshake
const FIRST_DELAY = 0.5; // seconds below which the wait before the first try again is drawn
const LONGEST_DELAY = 30;
const STEADY = 5; // seconds after which a connection counts as good
const NOT_ALLOWED = 1008; // a close code: coming back cannot help
const FOR_GOOD = [401, 403, 421]; // statuses: coming back cannot help either
const NO_EVENTS = "hub:none"; // a pattern that nothing matches
const NOT_BEGUN = ["rate_limited", "busy"]; // refusals of what has not run
const FOR_A_WHILE = [...NOT_BEGUN, "shutting_down", "broker_unavailable", "audit_unavailable"];

const seconds = () => performance.now() / 1000;
const delayBelow = (ceiling) => Math.random() * ceiling; // full jitter: a thousand clients do not come back as one

export class HubClient {
  #url;
  #open;
  #isOwn; // the way to open a connection is the program's
  #topics;
  #heartbeat;
  #tell;
  #socket = null;
  #live = false; // its stream has begun, and calls go through
  #opened = 0;
  #heard = 0;
  #asked = 0; // since when a sign of life is waited for
  #tries = 0;
  #retry = 0;
  #watch = 0;
  #sign = 0;
  #end = null; // {error} or {}: it is over
  #count = 0;
  #flying = new Map(); // calls by id
  #waiting = []; // calls to be sent
  #pausedUntil = 0; // the hub asks not to send
  #ahead = []; // [cursor, item or null, size]
  #size = 0;
  #held = false; // what comes is passed over: it will come again
  #silenced = false; // held, and nothing comes any more
  #position; // behind which the stream goes on
  #wakers = [];
  #served = new Map(); // by name
  #serving = new Map(); // AbortControllers by id
  #wake = () => globalThis.document?.hidden || this.#look(true);
  /** The position of what the iterator has handed over: keep it, to go on there later. */
  cursor;

  constructor(url = new URL("../", import.meta.url), { topics = [], after, heartbeat = 30, onstate, connect } = {}) {
    this.#url = new URL("ws", String(url).replace(/\/?$/, "/"));
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#url.searchParams.set("topics", NO_EVENTS);
    this.#open = connect ?? ((address) => new WebSocket(address));
    this.#isOwn = connect !== undefined;
    this.#topics = [...topics];
    this.#heartbeat = heartbeat;
    this.#tell = onstate ?? (() => {});
    this.#position = this.cursor = after;
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  // ---- what a program calls

  [Symbol.asyncIterator]() {
    return this;
  }

  /** The next Received or Gap, in the hub's order. */
  async next() {
    for (;;) {
      while (!this.#ahead.length) {
        if (this.#end?.error) throw this.#end.error;
        if (this.#end) return { value: undefined, done: true };
        await new Promise((resolve) => this.#wakers.push(resolve));
      }
      const [cursor, value, size] = this.#ahead.shift();
      [this.cursor, this.#size] = [cursor, this.#size - size];
      this.#goOn();
      if (value) return { value, done: false };
    }
  }

  /** Call a command. With a `key` it is run once however often it is sent, and sent again after a broken connection. */
  call(command, args = {}, { confirm, key, signal, onprogress } = {}) {
    return this.#call(command, args, { confirm, key, signal, onprogress, again: key !== undefined });
  }

  /** Publish an event; resolves to `{id, cursor}` when it is kept. Until then it is sent again, with the same id. */
  publish(event, data = null, { id = newId(), ttl, signal } = {}) {
    return this.#call("hub:publish", { event, data, id, ttl }, { signal, again: true });
  }

  /** Ask a person; resolves to `{question, answer, by, timed_out}`. The question outlives the connection. */
  ask(question, options, { key = newId(), signal, whileConnected = false, ...more } = {}) {
    const args = { question, options, ...more, while: whileConnected ? "connected" : undefined };
    return this.#call("hub:ask", args, { key, signal, again: !whileConnected });
  }

  /** All last values of these topics, and the cursor behind which the stream goes on: `{cursor, items}`. */
  async state(topics = ["*"], { signal } = {}) {
    const found = new Map();
    let page = { more: true };
    while (page.more) {
      page = await this.#call("hub:state", { topics, after: page.cursor }, { signal, again: true });
      for (const item of page.items) {
        const place = JSON.stringify([item.event, item.key]);
        found.delete(place); // to the end: they are in the order in which they last changed
        found.set(place, item);
      }
    }
    return { cursor: page.cursor, items: [...found.values()] };
  }

  /**
   * Serve a command: `await handler(args, call)` for each call, with `call.signal` and `call.progress(data)`.
   * `onlost(error)`: another client has it by now. It is provided again by itself as soon as it is free.
   */
  async provide(name, handler, { onlost, ...offer } = {}) {
    const before = this.#served.get(name);
    const served = { offer: { ...offer, name }, handler, onlost, accepted: false };
    this.#served.set(name, served);
    try {
      await this.#call("hub:provide", { commands: [served.offer] }, { again: true });
      served.accepted = true;
    } catch (error) {
      if (before) this.#served.set(name, before);
      else this.#served.delete(name);
      throw error;
    }
  }

  /** Leave for good: the iterator ends, and what has no answer yet is rejected. */
  close() {
    this.#finish({});
  }

  // ---- the connection

  #connect() {
    this.#tell("connecting");
    this.#asked = this.#opened = 0;
    const socket = (this.#socket = this.#open(this.#url));
    const mine = (f) => (event) => socket === this.#socket && f(event);
    this.#retry = setTimeout(mine(() => this.#lost()), CONNECT * 1000);
    socket.onopen = mine(() => this.#begin(socket));
    socket.onmessage = mine(({ data }) => this.#take(data));
    socket.onclose = mine(({ code, reason }) => {
      if (code === NOT_ALLOWED) return this.#finish({ error: refusal("forbidden", `The hub ended this: ${reason}.`) });
      if (!this.#opened) this.#ask();
      this.#lost();
    });
    socket.onerror = () => {}; // onclose says it, too
  }

  /** Ask the hub why it has refused a handshake: a WebSocket tells nobody. What would be refused again is the end. */
  async #ask() {
    if (this.#isOwn) return; // it may have a token, which this has not
    const address = new URL(this.#url);
    address.protocol = address.protocol.replace("ws", "http");
    try {
      const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(CONNECT * 1000) });
      const { error, code } = FOR_GOOD.includes(answer.status) ? await answer.json() : {};
      if (error && code && !this.#opened) this.#finish({ error: refusal("forbidden", error) });
    } catch {} // nobody answers, or no hub does, or this page may not hear it: perhaps the next time
  }

  async #begin(socket) {
    clearTimeout(this.#retry);
    this.#opened = this.#heard = seconds();
    this.#watch = setInterval(() => this.#look(), (this.#heartbeat * 1000) / 6);
    this.#held = this.#silenced = false;
    if (this.#topics.length && !(await this.#follow())) return;
    if (socket !== this.#socket) return;
    this.#live = true;
    this.#tell("live");
    for (const served of this.#served.values()) if (served.accepted) this.#offer(served, socket);
    this.#send();
  }

  /** Ask for a sign of life when it has been silent, or at once; leave it when there is none. */
  #look(atOnce = false) {
    if (!this.#socket && !this.#end) return this.#again();
    if (!this.#opened) return;
    const now = seconds();
    if (this.#asked && this.#heard >= this.#asked) this.#asked = 0;
    if (this.#asked && now - this.#asked > this.#heartbeat / 2) return this.#lost();
    if (this.#asked || now - this.#heard < (atOnce ? 1 : this.#heartbeat)) return;
    this.#asked = now;
    this.#call("hub:ping", {}, { first: true }).catch(() => {});
    // Timers of a page that nobody sees may come once a minute; whoever looks at it again need not wait for them.
    this.#sign = setTimeout(() => this.#look(), this.#heartbeat * 500 + 100);
  }

  #again() {
    clearTimeout(this.#retry);
    if (this.#socket || this.#end) return;
    try {
      this.#connect();
    } catch {
      this.#lost(); // what opens a connection has thrown: perhaps not the next time
    }
  }

  /** Let go of a connection that is of no use any more, whatever the other side thinks, and come back. */
  #lost() {
    this.#leave();
    const steady = this.#opened && seconds() - this.#opened > STEADY;
    this.#tries = steady ? 0 : this.#tries;
    const delay = delayBelow(Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(this.#tries++, 10)));
    this.#retry = setTimeout(() => this.#again(), delay * 1000);
    this.#tell("waiting", delay);
  }

  #leave() {
    const [socket, flying] = [this.#socket, [...this.#flying.values()]];
    [this.#socket, this.#live, this.#silenced] = [null, false, false];
    clearTimeout(this.#retry);
    clearTimeout(this.#sign);
    clearInterval(this.#watch);
    socket?.close();
    for (const serving of this.#serving.values()) serving.abort();
    this.#serving.clear();
    this.#flying.clear();
    this.#wait(flying.filter((call) => call.again));
    const error = refusal("lost", "The connection broke while this ran; whether it was done is not known.");
    for (const call of flying) if (!call.again) call.reject(error);
  }

  #finish(end) {
    if (this.#end) return;
    this.#end = end;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#leave();
    const error = end.error ?? refusal("lost", "The client was closed before there was an answer.");
    for (const call of this.#waiting.splice(0)) call.reject(error);
    for (const wake of this.#wakers.splice(0)) wake();
    this.#tell("closed");
  }

  #take(text) {
    this.#heard = seconds();
    const frame = JSON.parse(text);
    if (frame.type === "event") return this.#happened(frame, text.length);
    if (frame.type === "command") return void this.#serve(frame.id, frame.payload);
    const call = this.#flying.get(frame.id);
    if (!call) return this.#displaced(frame);
    this.#flying.delete(frame.id);
    if (frame.type === "response") call.resolve(frame.payload);
    else this.#refused(call, new HubError(frame.payload));
    this.#send();
  }

  // ---- events

  /** Begin, or go on behind the position; whether that is so. What the hub refuses for good ends everything. */
  async #follow() {
    this.#held = false;
    try {
      const args = { topics: this.#topics, after: this.#position };
      const { cursor } = await this.#call("hub:subscribe", args, { first: true });
      this.#position ??= cursor;
      this.cursor ??= cursor;
      return true;
    } catch (error) {
      if (!error.retryable) this.#finish({ error });
      else if (error.code !== "lost") this.#lost();
      return false;
    }
  }

  #happened({ cursor, payload: { event, data }, ...frame }, size) {
    if (!cursor && event === "hub:progress") return this.#flying.get(data.call)?.onprogress?.(data);
    if (this.#held) return;
    if (cursor) this.#put(cursor, new Received({ ...frame, cursor, payload: { event, data } }), size);
    else if (event === "hub:gap") this.#put(justBefore(data.before), new Gap(data), size);
    else if (event === "hub:mark") this.#put(data.cursor, null, size);
  }

  #put(cursor, item, size) {
    this.#position = cursor;
    this.#ahead.push([cursor, item, size]);
    this.#size += size;
    for (const wake of this.#wakers.splice(0)) wake();
    if (this.#size > READ_AHEAD) this.#hold();
  }

  /** Who does not follow is not sent more: from here on it would be memory of this program. */
  async #hold() {
    this.#held = true;
    await this.#call("hub:unsubscribe", { topics: this.#topics }, { first: true }).then(
      () => (this.#silenced = true),
      () => {},
    );
    this.#goOn();
  }

  #goOn() {
    if (!this.#silenced || this.#ahead.length) return;
    this.#silenced = false;
    this.#follow();
  }

  // ---- calls

  /** `again`: it may be sent twice, so it outlives a connection; `first`: it belongs to this connection alone. */
  #call(command, args, { confirm, key, signal, onprogress, again = false, first = false } = {}) {
    const id = String(++this.#count);
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#end) throw this.#end.error ?? refusal("lost", "The client is closed.");
      if (!first && this.#waiting.length >= MOST_WAITING) throw refusal("busy", `${MOST_WAITING} calls wait already.`);
      const payload = { command, args, confirm, idempotency_key: key };
      const call = { id, text: written({ type: "command", id, payload }), onprogress, again, first, tries: 0 };
      const aborted = () => this.#withdraw(call, signal.reason);
      const settled = (settle) => (value) => (signal?.removeEventListener("abort", aborted), settle(value));
      [call.resolve, call.reject] = [settled(resolve), settled(reject)];
      signal?.addEventListener("abort", aborted);
      if (first) this.#fly(call);
      else this.#waiting.push(call), this.#send();
    });
  }

  #fly(call) {
    this.#flying.set(call.id, call);
    this.#socket.send(call.text);
  }

  #send() {
    while (this.#live && this.#waiting.length && this.#flying.size < AT_ONCE && seconds() >= this.#pausedUntil) {
      this.#fly(this.#waiting.shift());
    }
  }

  /** Calls that wait once more do so where they were: in the order in which they were made. */
  #wait(calls) {
    this.#waiting = [...calls, ...this.#waiting].sort((one, other) => one.id - other.id);
  }

  /** What the hub could not begin, or may be sent again, waits as long as it asks for. */
  #refused(call, error) {
    const codes = call.again ? FOR_A_WHILE : NOT_BEGUN;
    if (!codes.includes(error.code) || (!call.again && ++call.tries >= TRIES)) return call.reject(error);
    const [delay, socket] = [(error.retryAfter ?? 0.5) + delayBelow(0.5), this.#socket];
    this.#pausedUntil = Math.max(this.#pausedUntil, seconds() + delay);
    if (!call.first) this.#wait([call]);
    setTimeout(() => {
      if (call.first && socket === this.#socket) this.#fly(call);
      else if (call.first) call.reject(refusal("lost", "The connection broke."));
      this.#send();
    }, delay * 1000 + 5);
  }

  #withdraw(call, reason) {
    this.#waiting = this.#waiting.filter((other) => other !== call);
    if (this.#flying.delete(call.id)) this.#call("hub:cancel", { id: call.id }, { first: true }).catch(() => {});
    call.reject(reason);
  }

  // ---- commands that this program serves

  /** Offer what was accepted before; while somebody else has it, or the hub cannot take it now, again and again. */
  async #offer(served, socket) {
    try {
      await this.#call("hub:provide", { commands: [served.offer] }, { first: true });
    } catch (error) {
      if (socket !== this.#socket) return; // it is offered by the next one
      if (error.code !== "already_provided" && !error.retryable) return console.error(served.offer.name, error);
      setTimeout(() => socket === this.#socket && this.#offer(served, socket), 1000 * (0.5 + delayBelow(2)));
    }
  }

  /** The hub says, unasked, that another client serves what this one has provided. */
  #displaced({ type, id, payload }) {
    if (type !== "error" || id !== null || payload.code !== "already_provided") return;
    for (const name of payload.details.commands) {
      const served = this.#served.get(name);
      if (!served) continue;
      this.#offer(served, this.#socket);
      served.onlost?.(new HubError(payload));
    }
  }

  async #serve(id, { command, args }) {
    if (command === "hub:cancel") return this.#serving.get(args.id)?.abort();
    const [socket, ending] = [this.#socket, new AbortController()];
    const say = (frame) => socket === this.#socket && !ending.signal.aborted && socket.send(written(frame));
    const answer = (type, payload) => say({ type, id, payload });
    const progress = (data) => answer("event", { event: "hub:progress", data: { ...data, call: id } });
    const fail = (error, details) => answer("error", { error, code: "command_failed", retryable: false, details });
    this.#serving.set(id, ending);
    try {
      const result = await this.#served.get(command).handler(args, { id, signal: ending.signal, progress });
      answer("response", result ?? null);
    } catch (error) {
      if (!(error instanceof HubError)) console.error(`${command} failed`, error);
      if (error instanceof HubError) fail(error.message, error.details);
      else fail(`${command} failed; the console of its provider says why.`);
    }
    if (this.#serving.get(id) === ending) this.#serving.delete(id);
  }
}
