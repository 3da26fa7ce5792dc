// The commands that a program serves: offered to the hub, again behind each break, and run when somebody calls them.

import { HubError, written } from "./frames.js";

const AGAIN = [0.5, 2.5]; // seconds until a command is offered again that the hub has not taken

export class Serving {
  #link;
  #call;
  #served = new Map(); // by name
  #running = new Map(); // AbortControllers by id

  /** `call(command, args, options)` calls the hub. */
  constructor(link, call) {
    [this.#link, this.#call] = [link, call];
  }

  async provide(name, handler, { onlost, ...offer }) {
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

  /** On a new connection: what was accepted before is offered again. */
  begin(socket) {
    for (const served of this.#served.values()) if (served.accepted) this.#offer(served, socket);
  }

  /** While somebody else has it, or the hub cannot take it now, again and again. */
  async #offer(served, socket) {
    try {
      await this.#call("hub:provide", { commands: [served.offer] }, { first: true });
    } catch (error) {
      if (socket !== this.#link.socket) return; // it is offered by the next one
      if (error.code !== "already_provided" && !error.retryable) return console.error(served.offer.name, error);
      const [least, most] = AGAIN;
      const delay = 1000 * (least + Math.random() * (most - least));
      setTimeout(() => socket === this.#link.socket && this.#offer(served, socket), delay);
    }
  }

  /** The hub says, unasked, that another client serves what this one has provided. */
  displaced({ type, id, payload }) {
    if (type !== "error" || id !== null || payload.code !== "already_provided") return;
    for (const name of payload.details.commands) {
      const served = this.#served.get(name);
      if (!served) continue;
      this.#offer(served, this.#link.socket);
      served.onlost?.(new HubError(payload));
    }
  }

  /** The connection has ended: nobody waits for what runs any more. */
  end() {
    for (const ending of this.#running.values()) ending.abort();
    this.#running.clear();
  }

  /** A frame of type `command` has come. */
  async serve(id, { command, args }) {
    if (command === "hub:cancel") return this.#running.get(args.id)?.abort();
    const [socket, ending] = [this.#link.socket, new AbortController()];
    const say = (frame) => socket === this.#link.socket && !ending.signal.aborted && socket.send(written(frame));
    const answer = (type, payload) => say({ type, id, payload });
    const progress = (data) => answer("event", { event: "hub:progress", data: { ...data, call: id } });
    const fail = (error, details) => answer("error", { error, code: "command_failed", retryable: false, details });
    this.#running.set(id, ending);
    try {
      const result = await this.#served.get(command).handler(args, { id, signal: ending.signal, progress });
      answer("response", result ?? null);
    } catch (error) {
      if (!(error instanceof HubError)) console.error(`${command} failed`, error);
      if (error instanceof HubError) fail(error.message, error.details);
      else fail(`${command} failed; the console of its provider says why.`);
    }
    if (this.#running.get(id) === ending) this.#running.delete(id);
  }
}
