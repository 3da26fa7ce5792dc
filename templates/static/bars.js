// What is told in a bar below the head, on every page; and what ends it: nothing stands there longer than it is true.

// What ends each, beside the reader, who can close it, and the end of the page itself.
// again: the hub is there again; pressed: something is sent once more; over: what it is about has left the page.
const ENDS = {
  unsent: ["again", "pressed", "over"],
  late: ["pressed"],
  history: [],
};

const box = document.getElementById("notice");

/** Tell something of this kind, in the place of what was told of it before; `about` is what it is about. */
export function notice(kind, text, about = document.body) {
  const close = document.createElement("button");
  const [bar, words] = [document.createElement("p"), document.createElement("span")];
  Object.assign(close, { type: "button", className: "small", textContent: "Close" });
  close.addEventListener("click", () => remove(kind));
  words.textContent = text;
  bar.className = "bar";
  bar.dataset.notice = kind;
  bar.about = about;
  bar.append(words, " ", close);
  remove(kind);
  box.append(bar);
}

/** Something has happened that ends notices. */
export function end(by) {
  for (const kind in ENDS) if (ENDS[kind].includes(by)) remove(kind);
}

/** End what is about something that does not stand on the page any more. */
export function sweep() {
  for (const bar of [...box.children]) {
    if (ENDS[bar.dataset.notice].includes("over") && !bar.about.isConnected) bar.remove();
  }
}

function remove(kind) {
  for (const bar of [...box.children]) if (bar.dataset.notice === kind) bar.remove();
}
