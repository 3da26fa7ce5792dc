// What a hub's client says and hears: events, gaps, refusals, and frames as text.

const LARGEST_FRAME = 64 * 1024; // bytes that the hub takes
const DEEPEST = 32;
const HALF = /\p{Cs}/u; // of a character that takes two

/** A refusal: the hub's code, and a sentence for a person. The code `lost` is this side's own. */
export class HubError extends Error {
  constructor({ error, code, retryable = false, details, retry_after }) {
    super(error);
    Object.assign(this, { name: "HubError", code, retryable, details, retryAfter: retry_after });
  }
}

/** Something that happened. */
export class Received {
  constructor({ id, timestamp, cursor, payload }) {
    Object.assign(this, { name: payload.event, data: payload.data, id, timestamp, cursor });
  }
}

/** Events that this client will not get: those between `after` and `before`. */
export class Gap {
  constructor({ after, before, count, reason }) {
    Object.assign(this, { after, before, count, reason });
  }
}

/** An id that nobody else has. (`crypto.randomUUID` is not there for a page that came without TLS.) */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A refusal of this side's own. */
export function refusal(code, error) {
  return new HubError({ code, error, retryable: code === "lost" });
}

/** The position whose next event is this one. */
export function justBefore(cursor) {
  const at = cursor.lastIndexOf(":");
  return `${cursor.slice(0, at)}:${BigInt(cursor.slice(at + 1)) - 1n}`;
}

/**
 * A frame as text. Throws what the hub could only refuse without saying whose it is, or by ending the connection.
 */
export function written(frame) {
  const text = JSON.stringify(frame, checked);
  let [depth, deepest] = [0, 0];
  for (const bracket of text.replace(/"(?:[^"\\]|\\.)*"/g, "").replace(/[^[\]{}]/g, "")) {
    depth += "[{".includes(bracket) ? 1 : -1;
    deepest = Math.max(deepest, depth);
  }
  if (deepest > DEEPEST) throw refusal("invalid_message", `This is nested deeper than ${DEEPEST}.`);
  if (text.length * 3 > LARGEST_FRAME && new TextEncoder().encode(text).length > LARGEST_FRAME) {
    throw refusal("too_large", `A frame can have ${LARGEST_FRAME} bytes: send less, or a part of it at a time.`);
  }
  return text;
}

function checked(key, value) {
  const isLong = Number.isInteger(value) && Math.abs(value) >= 1e20 && Math.abs(value) < 1e21;
  if (isLong) throw refusal("invalid_message", "An integer can have 20 digits.");
  if (HALF.test(key) || (typeof value === "string" && HALF.test(value))) {
    throw refusal("invalid_message", "A text has half of a character that takes two.");
  }
  return value;
}
