// The palette: while somebody types into the search field, the hub's page of what is found is fetched, and its links are
// offered as a list (ARIA's combobox pattern). Without this script the field leads to that page.

const WAIT = 120; // ms of quiet before the hub is asked
const PATIENCE = 10_000;

const field = document.getElementById("search");
const home = new URL(document.body.dataset.root || "./", location.href);
const list = document.createElement("div");
const told = document.createElement("p");
let timer = 0;
let asking = null;
let active = -1;

const options = () => [...list.querySelectorAll("[role=option]")];

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function close() {
  clearTimeout(timer);
  asking?.abort();
  list.hidden = true;
  list.replaceChildren();
  told.textContent = "";
  mark(-1);
  field.setAttribute("aria-expanded", "false");
}

function mark(index) {
  const all = options();
  all[active]?.setAttribute("aria-selected", "false");
  active = index;
  const node = all[index];
  node?.setAttribute("aria-selected", "true");
  node?.scrollIntoView({ block: "nearest" });
  if (node) field.setAttribute("aria-activedescendant", node.id);
  else field.removeAttribute("aria-activedescendant");
}

/** Ask for the page of what is found; parsed without running anything. */
function look() {
  const text = field.value.trim();
  if (!text) return close();
  asking?.abort();
  const request = (asking = new XMLHttpRequest());
  const url = new URL(home);
  url.search = new URLSearchParams({ search: text });
  request.open("GET", url);
  request.responseType = "document";
  request.timeout = PATIENCE;
  request.onload = () => {
    if (request === asking && request.status === 200) offer(request.response);
  };
  request.send();
}

/** Show the links of that page as options. */
function offer(page) {
  let [count, total] = [0, 0];
  const groups = [...page.querySelectorAll("[data-found]")].map((group) => {
    const items = [...group.querySelectorAll("li")].map((item) => {
      const link = item.querySelector("a");
      const more = item.querySelector("span.q")?.textContent ?? "";
      const name = element("b", {}, link.textContent);
      const option = { role: "option", id: `found-${count++}`, "aria-selected": "false" };
      return element("div", { ...option, "data-href": link.getAttribute("href") }, name, ` ${more}`);
    });
    total += Number(group.dataset.total);
    const title = element("p", { "aria-hidden": "true" }, group.dataset.found);
    return element("div", { role: "group", "aria-label": group.dataset.found }, title, ...items);
  });
  list.replaceChildren(...groups);
  list.hidden = count === 0;
  told.textContent = count ? `${total} found; choose with the arrow keys.` : "Nothing has this name.";
  field.setAttribute("aria-expanded", String(count > 0));
  mark(count ? 0 : -1);
}

function go(option) {
  location.assign(new URL(option.dataset.href, home));
}

function step(by) {
  const count = options().length;
  if (count) mark((active + by + count) % count);
}

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  Enter: () => go(options()[active]),
  Escape: close,
};

if (field) {
  list.id = "palette";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Found");
  told.className = "away";
  told.setAttribute("role", "status");
  field.setAttribute("role", "combobox");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-autocomplete", "list");
  field.form.append(list, told);
  close();
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, WAIT);
  });
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || list.hidden || !keys[event.key]) return;
    if (event.key === "Enter" && active < 0) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  field.addEventListener("blur", () => setTimeout(close, WAIT));
  list.addEventListener("pointerdown", (event) => {
    const option = event.target.closest("[role=option]");
    if (!option) return;
    event.preventDefault();
    go(option);
  });
}
