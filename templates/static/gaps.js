// Says in the list of events how many have passed between what stands there now and what stood there before, where the
// page was hidden, paused or not connected meanwhile. The server's list is the newest ones; it does not know.

const AWAY = 5; // seconds without a newer list
const ID = "missed";

let heard = performance.now();

const numbers = () => [...document.querySelectorAll("#events [data-event]")].map(({ dataset }) => Number(dataset.event));

/** The newest number that stands there. */
export const newest = () => Math.max(0, ...numbers());

/** A newer list stands there; `before` was the newest of the one before. */
export function mark(before) {
  const [shown, now] = [numbers(), performance.now()];
  const wasAway = now - heard > AWAY * 1000;
  heard = now;
  const old = document.getElementById(ID);
  if (old && !shown.includes(Number(old.dataset.keep))) old.remove();
  const oldest = Math.min(...shown);
  const count = oldest - before - 1;
  if (!wasAway || !before || !shown.length || count <= 0) return;
  const log = document.querySelector("#events .log");
  document.getElementById(ID)?.remove();
  const line = document.createElement("li");
  line.id = ID;
  line.className = "gap";
  line.dataset.keep = String(oldest);
  line.textContent =
    "whole" in log.dataset
      ? `${count.toLocaleString("en")} more ${count === 1 ? "event" : "events"} came before these, and behind what stood here.`
      : "More of these may have come before them, and behind what stood here.";
  log.append(line);
}
