// Notices on the desktop of what waits for the reader: only where that was asked for, and only while nobody looks here.

const KEY = "hub-notices";
const MOST = 3; // at once; of more there is one that says how many
const button = document.getElementById("notices");

/** What this browser remembers of the reader's wish; one that remembers nothing forgets it. */
function wish(value) {
  try {
    if (value !== undefined) localStorage.setItem(KEY, value);
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

const isPossible = () => "Notification" in window && Notification.permission !== "denied";

/** Whether the reader wants to be told. */
export const areWanted = () => isPossible() && Notification.permission === "granted" && wish() === "on";

/** Tell of rows that have come. */
export function tell(rows) {
  if (!document.hidden || !areWanted() || !rows.length) return;
  if (rows.length > MOST) return notice(`${rows.length} more wait for you`, rows[0]);
  for (const row of rows) notice(row.querySelector(".what").textContent, row);
}

function notice(text, row) {
  const { host } = document.querySelector(".strip").dataset;
  const shown = new Notification(`hub · ${host}`, { body: text.trim(), tag: row.id });
  shown.onclick = () => {
    window.focus();
    document.getElementById(row.id)?.focus();
    shown.close();
  };
}

function show() {
  button.hidden = !isPossible();
  button.setAttribute("aria-pressed", String(areWanted()));
}

button.addEventListener("click", async () => {
  if (areWanted()) wish("off");
  else if ((await Notification.requestPermission()) === "granted") wish("on");
  show();
});
show();
