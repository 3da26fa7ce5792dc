// What can be done without a mouse. An answer is only ever given by Enter, on the button that has the focus.

const HELD = "That cannot be sent now.";

const byId = (id) => document.getElementById(id);
const rows = () => [...document.querySelectorAll("[data-row]")];
const current = () => document.activeElement?.closest("[data-row]");

function go(row) {
  row?.focus();
  row?.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const all = rows();
  const at = all.indexOf(current());
  go(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)]);
}

/** Put the focus on an answer of the row that has it, so that Enter gives it. Stops a key that is meant for one row from
 * answering the question of another. */
function answer(number, say) {
  const row = current();
  if (!row) return say("No row has the focus: j and k go to one.");
  const button = row.querySelectorAll(".answers button")[number];
  if (!button?.checkVisibility()) return say(`This row has no ${number ? "second answer" : "answers"}.`);
  if (button.disabled) return say(HELD);
  button.focus();
  say(`Enter answers ${button.textContent}.`);
}

/** Mark the row as seen. It leaves, so the focus goes to the next one, or the one before. */
function see(say) {
  const row = current();
  const button = row?.querySelector("form[action=seen] button");
  if (!button?.checkVisibility()) return row && say("There is nothing to mark as seen in this row.");
  if (button.disabled) return say(HELD);
  const all = rows();
  const at = all.indexOf(row);
  button.click();
  go(all[at + 1] ?? all[at - 1]);
}

/** Open the page that a row leads to: its task's, else its agent's. */
function open(row) {
  const own = row.matches("[data-task]") ? row.querySelector("a[href*='?task=']") : null;
  (own ?? row.querySelector("a[href]"))?.click();
}

function help() {
  const dialog = byId("help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

/** Listen to the keys; `say(text)` tells those who do not see. */
export function listen(say) {
  const keys = {
    "/": () => byId("search").focus(),
    j: () => step(1),
    k: () => step(-1),
    a: () => answer(0, say),
    d: () => answer(1, say),
    e: () => see(say),
    "?": help,
  };
  byId("close").addEventListener("click", () => byId("help").close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape" && document.activeElement?.matches("button, input")) {
      return document.activeElement.matches("dialog *") ? undefined : void document.activeElement.blur();
    }
    if (event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    // On a row itself: what has the focus within one, a link or a button, takes Enter as ever.
    const isRow = document.activeElement?.matches("[data-row]");
    const act = event.key === "Enter" && isRow ? () => open(document.activeElement) : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
