// What can be done without a mouse. An answer is only ever given by Enter, on the button that has the focus.

const byId = (id) => document.getElementById(id);
const rows = () => [...document.querySelectorAll("[data-row]")];
const current = () => document.activeElement?.closest("[data-row]");

function step(by) {
  const all = rows();
  const at = all.indexOf(current());
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

/** Put the focus on an answer, so that Enter gives it. */
function answer(number, say) {
  const row = current()?.querySelector(".answers") ? current() : document.querySelector("[data-row]:has(.answers)");
  const button = row?.querySelectorAll(".answers button")[number];
  if (!button || !button.checkVisibility()) return;
  button.focus();
  say(`Enter answers ${button.textContent}.`);
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
    e: () => current()?.querySelector("form[action=seen] button")?.click(),
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
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
