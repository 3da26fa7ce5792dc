// Makes one piece of the page like another that the server has drawn, and leaves alone what is the same already: the
// same nodes stay, so that focus, selection, scrolling and typed text stay where they are.
//
// Children are the same by their id, else by their place and name. What carries `data-keep` is its own script's, and is
// neither changed nor removed; whether a <details> is open is the reader's to say.

/** Make `old` like `fresh`, which is used up. */
export function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !isReaders(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !isReaders(old, name)) old.setAttribute(name, value);
  }
  const known = new Map([...old.children].filter((node) => node.id).map((node) => [node.id, node]));
  const pairs = [];
  let next = old.firstChild;
  for (const node of fresh.childNodes) {
    let same = known.get(node.id);
    if (!node.id) {
      while (next && (next.id || isKept(next))) next = next.nextSibling;
      if (next?.nodeName === node.nodeName) [same, next] = [next, next.nextSibling];
    }
    pairs.push([same?.nodeName === node.nodeName ? same : undefined, node]);
  }
  const stays = new Set(pairs.map(([same]) => same));
  for (const node of [...old.childNodes]) if (!stays.has(node) && !isKept(node)) node.remove();
  let at = old.firstChild;
  for (const [same, node] of pairs) {
    while (at && isKept(at) && at !== same && !stays.has(at)) at = at.nextSibling;
    if (!same) old.insertBefore(node, at);
    else if (same !== at) (old.moveBefore ?? old.insertBefore).call(old, same, at);
    else at = at.nextSibling;
    if (same && !isKept(same)) update(same, node);
  }
}

function update(old, fresh) {
  if (old.nodeType === Node.ELEMENT_NODE) morph(old, fresh);
  else if (old.data !== fresh.data) old.data = fresh.data;
}

const isKept = (node) => node.nodeType === Node.ELEMENT_NODE && node.hasAttribute("data-keep");
const isReaders = (node, name) => name === "open" && node.localName === "details";
