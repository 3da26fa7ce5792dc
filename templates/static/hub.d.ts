// The types of hub.js, the client of a hub.

/** A refusal: the hub's code, and a sentence for a person. The code `lost` says that nobody knows what came of a call. */
export class HubError extends Error {
  readonly code: string;
  readonly retryable: boolean;
  readonly details?: Record<string, unknown>;
  /** Seconds. */
  readonly retryAfter?: number;
  constructor(refusal: {
    error: string;
    code: string;
    retryable?: boolean;
    details?: Record<string, unknown>;
    retry_after?: number;
  });
}

/** Something that happened. */
export class Received<Data = any> {
  readonly name: string;
  readonly data: Data;
  readonly id: string;
  /** RFC 3339, UTC. */
  readonly timestamp: string;
  readonly cursor: string;
}

/** Events that this client will not get: those strictly between `after` and `before`. */
export class Gap {
  readonly after: string | null;
  readonly before: string;
  /** How many those are, matching or not; null: not known. */
  readonly count: number | null;
  readonly reason: "slow" | "expired" | "epoch";
}

export interface Options {
  /** Patterns; without any there are no events. */
  topics?: Iterable<string>;
  /** The cursor behind which the events begin; without it, from now on. */
  after?: string;
  /** Seconds of silence after which the hub is asked whether it is there; half of that later the connection is left. */
  heartbeat?: number;
  /** Called whenever the connection changes; with "waiting", the seconds until the next try. */
  onstate?: (state: "connecting" | "live" | "waiting" | "closed", delay?: number) => void;
  /** Opens a WebSocket; for a token, or where there is no WebSocket. Whatever it ends with, it is called again. */
  connect?: (url: URL) => WebSocket;
}

export interface Cancellable {
  /** Withdraws the call, in the hub too. */
  signal?: AbortSignal;
}

export interface CallOptions extends Cancellable {
  /** `details.confirm` of the refusal `confirmation_required`. */
  confirm?: string;
  /** An idempotency key: a command that writes runs once, however often it is sent; so it is sent again by itself. */
  key?: string;
  /** Called with what the command says on its way. */
  onprogress?: (data: any) => void;
}

export interface Question extends Cancellable {
  default?: string;
  /** Seconds that the question waits. */
  timeout?: number;
  details?: unknown;
  key?: string;
  /** Whether it is withdrawn when the connection ends. */
  whileConnected?: boolean;
}

export interface LastValue<Data = any> {
  event: string;
  key: string;
  timestamp: string;
  data: Data;
  stale: boolean;
}

export interface ServedCall {
  readonly id: string;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  progress(data: Record<string, unknown>): void;
}

export interface Offer {
  summary?: string;
  /** JSON Schema, draft 2020-12. */
  args?: Record<string, unknown>;
  effect?: "read" | "write" | "dangerous";
}

export class HubClient implements AsyncIterableIterator<Received | Gap> {
  /** The position of what was handed over: keep it, to go on there later. */
  readonly cursor?: string;
  /** `url`: the hub's address; without it, that of the hub which this module came from. */
  constructor(url?: string | URL, options?: Options);
  [Symbol.asyncIterator](): this;
  next(): Promise<IteratorResult<Received | Gap, undefined>>;
  call<Result = any>(command: string, args?: Record<string, unknown>, options?: CallOptions): Promise<Result>;
  publish(
    event: string,
    data?: unknown,
    options?: Cancellable & { id?: string; ttl?: number },
  ): Promise<{ id: string; cursor: string }>;
  ask(
    question: string,
    options: string[],
    more?: Question,
  ): Promise<{ question: string; answer: string; by: string | null; timed_out: boolean }>;
  state(topics?: string[], options?: Cancellable): Promise<{ cursor: string; items: LastValue[] }>;
  provide(
    name: string,
    handler: (args: any, call: ServedCall) => unknown,
    offer?: Offer & { onlost?: (error: HubError) => void },
  ): Promise<void>;
  close(): void;
}
