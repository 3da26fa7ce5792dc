// The client of a hub, for browsers; also for Node 22, Deno and Bun, which have the same WebSocket.
//
// One connection carries everything: events, calls, and the commands that this program serves. It comes back by itself,
// goes on behind the last event that it had, sends again what may be sent twice, and never has two connections. Nothing
// is missing without a Gap, nothing comes twice. The types stand in hub.d.ts.

import { Gap, HubError, Received, justBefore, newId, refusal, written } from "./frames.js";
import { Link } from "./link.js";
import { Serving } from "./serving.js";

export { Gap, HubError, Received };

const AT_ONCE = 200; // calls in flight; the hub takes 256
const MOST_WAITING = 1000; // calls that wait to be sent; what is more is refused
const READ_AHEAD = 1024 * 1024; // characters of events read and not yet taken; then the hub keeps the rest
const TRIES = 10; // of a call that the hub has not let begin
const NO_EVENTS = "hub:none"; // a pattern that nothing matches
const NOT_BEGUN = ["rate_limited", "busy"]; // refusals of what has not run
const FOR_A_WHILE = [...NOT_BEGUN, "shutting_down", "broker_unavailable", "audit_unavailable"];

const seconds = () => performance.now() / 1000;

export class HubClient {
  #link;
  #serving;
  #topics;
  #tell;
  #live = false; // its stream has begun, and calls go through
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
  /** The position of what the iterator has handed over: keep it, to go on there later. */
  cursor;

  constructor(url = new URL("../", import.meta.url), { topics = [], after, heartbeat = 30, onstate, connect } = {}) {
    const address = new URL("ws", String(url).replace(/\/?$/, "/"));
    address.protocol = address.protocol.replace("http", "ws");
    address.searchParams.set("topics", NO_EVENTS);
    this.#topics = [...topics];
    this.#tell = onstate ?? (() => {});
    this.#position = this.cursor = after;
    this.#link = new Link(address, { connect, heartbeat }, {
      state: (name, delay) => this.#tell(name, delay),
      opened: (socket) => this.#begin(socket),
      frame: (text) => this.#take(text),
      silent: () => this.#call("hub:ping", {}, { first: true }).catch(() => {}),
      left: () => this.#left(),
      refused: (error) => this.#finish({ error }),
    });
    this.#serving = new Serving(this.#link, (...what) => this.#call(...what));
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
  provide(name, handler, offer = {}) {
    return this.#serving.provide(name, handler, offer);
  }

  /** Leave for good: the iterator ends, and what has no answer yet is rejected. */
  close() {
    this.#finish({});
  }

  // ---- the connection

  async #begin(socket) {
    this.#held = this.#silenced = false;
    if (this.#topics.length && !(await this.#follow())) return;
    if (socket !== this.#link.socket) return;
    this.#live = true;
    this.#tell("live");
    this.#serving.begin(socket);
    this.#send();
  }

  #left() {
    const flying = [...this.#flying.values()];
    this.#live = this.#silenced = false;
    this.#serving.end();
    this.#flying.clear();
    this.#wait(flying.filter((call) => call.again));
    const error = refusal("lost", "The connection broke while this ran; whether it was done is not known.");
    for (const call of flying) if (!call.again) call.reject(error);
  }

  #finish(end) {
    if (this.#end) return;
    this.#end = end;
    this.#link.end();
    const error = end.error ?? refusal("lost", "The client was closed before there was an answer.");
    for (const call of this.#waiting.splice(0)) call.reject(error);
    for (const wake of this.#wakers.splice(0)) wake();
    this.#tell("closed");
  }

  #take(text) {
    const frame = JSON.parse(text);
    if (frame.type === "event") return this.#happened(frame, text.length);
    if (frame.type === "command") return void this.#serving.serve(frame.id, frame.payload);
    const call = this.#flying.get(frame.id);
    if (!call) return this.#serving.displaced(frame);
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
      else if (error.code !== "lost") this.#link.lost();
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
    this.#link.socket.send(call.text);
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
    const [delay, socket] = [(error.retryAfter ?? 0.5) + Math.random() / 2, this.#link.socket];
    this.#pausedUntil = Math.max(this.#pausedUntil, seconds() + delay);
    if (!call.first) this.#wait([call]);
    setTimeout(() => {
      if (call.first && socket === this.#link.socket) this.#fly(call);
      else if (call.first) call.reject(refusal("lost", "The connection broke."));
      this.#send();
    }, delay * 1000 + 5);
  }

  #withdraw(call, reason) {
    this.#waiting = this.#waiting.filter((other) => other !== call);
    if (this.#flying.delete(call.id)) this.#call("hub:cancel", { id: call.id }, { first: true }).catch(() => {});
    call.reject(reason);
  }
}
