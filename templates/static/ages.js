// Writes times by the reader's clock, and goes on counting: `<time datetime=… data-as="ago|since|left|clock">`.
// What the server has written in their place is right at the minute, in its own zone; the same words as in formats.py.

const two = (value) => String(value).padStart(2, "0");
const day = new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "medium" }); // 2026-11-30 14:05:09

/** Seconds as people say them: `40 s`, `3 min`, `2 h 5 min`, `4 d 3 h`. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const [unit, length, lesser, part] = whole < 86400 ? ["h", 3600, "min", 60] : ["d", 86400, "h", 3600];
  const rest = Math.floor((whole % length) / part);
  return `${Math.floor(whole / length)} ${unit}` + (rest ? ` ${rest} ${lesser}` : "");
}

/** Seconds that are left: `7:48`, `2:05:00`. */
export function countdown(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  if (whole >= 86400) return span(whole);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}

const written = {
  ago: (then, now) => `${span((now - then) / 1000)} ago`,
  since: (then, now) => span((now - then) / 1000),
  left: (then, now) => countdown((then - now) / 1000),
  clock: (then) => day.format(then).slice(-8),
};

/** Write all times within a piece of a document. */
export function write(root, now = Date.now()) {
  for (const node of root.querySelectorAll("time[data-as]")) {
    const then = Date.parse(node.dateTime);
    if (Number.isNaN(then)) continue;
    const [text, title] = [written[node.dataset.as](then, now), day.format(then)];
    if (node.textContent !== text) node.textContent = text;
    if (node.title !== title) node.title = title;
  }
}
