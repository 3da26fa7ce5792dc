// Sends forms without leaving the page; what the hub does not take is shown by the page that it answers with.

import { end, notice } from "./bars.js";
import { lead } from "./settling.js";

const AGAIN = 2; // seconds after which what was sent can be pressed again
const sent = new WeakSet(); // forms that cannot: whatever else of them is drawn anew

/** Send what is pressed from here on. `say(text)` tells those who do not see; `isThere()`: the hub is connected. */
export function send(say, isThere) {
  document.addEventListener("submit", async (event) => {
    const { target: form, submitter } = event;
    if (form.method !== "post") return;
    end("pressed");
    const isAct = form.matches("form.act");
    if (!isAct && isThere()) return leave(form);
    event.preventDefault(); // what was typed would be gone with the page
    if (!isAct) return unsent(form, false);
    if (sent.has(form)) return;
    const data = new URLSearchParams(new FormData(form, submitter));
    const headers = { accept: "application/json" };
    const press = (can) => {
      sent[can ? "delete" : "add"](form);
      form.querySelectorAll("button").forEach((button) => (button.disabled = !can));
      if (!isThere()) hold(true);
    };
    const isByKey = submitter?.matches(":focus-visible");
    if (isByKey) lead(form.closest("[data-row], main")); // what is disabled cannot keep the focus
    press(false);
    const init = { method: "POST", body: data, headers, redirect: "manual" }; // a panel's own form leads to a page
    const answer = await fetch(form.action, init).catch(() => null);
    const isJson = answer?.ok && answer.headers.get("content-type")?.startsWith(headers.accept);
    if (isJson || answer?.type === "opaqueredirect") {
      setTimeout(press, AGAIN * 1000, true); // it stays where its row does, as that of a vote
      const { late } = isJson ? await answer.json() : {};
      return late ? notice("late", late) : say("Sent.");
    }
    press(true);
    if (isByKey && form.closest("[data-row], main") === document.activeElement) submitter.focus();
    if (!answer) return unsent(form, isThere());
    form.classList.remove("act");
    form.requestSubmit(submitter);
  });
}

/** Whether no form can be sent: while there is no connection nobody would take it. What is disabled already stays so. */
export function hold(isHeld) {
  const focused = document.activeElement;
  for (const button of document.querySelectorAll("form button")) {
    if (isHeld ? button.disabled : !button.hasAttribute("data-held")) continue;
    button.toggleAttribute("data-held", isHeld);
    button.disabled = isHeld;
  }
  if (focused?.matches("[data-held]")) lead(focused.closest("[data-row], main")); // what is disabled cannot keep it
}

/** The browser sends the form, and stays here until that has run: meanwhile it says so, and is not pressed again. */
function leave(form) {
  const buttons = [...form.querySelectorAll("button")].map((button) => [button, button.textContent]);
  const press = (can) => {
    for (const [button, text] of buttons) {
      button.disabled = !can;
      if (button.dataset.busy) button.textContent = can ? text : button.dataset.busy;
    }
  };
  setTimeout(press, 0, false); // whoever has pressed is sent, too
  addEventListener("pageshow", (event) => event.persisted && press(true), { once: true }); // somebody has gone back
}

function unsent(form, isThere) {
  notice("unsent", `It could not be sent${isThere ? "; press it again" : ": the hub is not connected"}.`, form);
}
