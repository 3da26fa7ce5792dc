// What has only just come under the pointer, or to the focus, takes no press. Stops the second click of a double-click,
// or a press that was meant for what stood there, from answering another question. On a document that has just been
// loaded `hub.css` does the same, also without script.

const SETTLED = 500; // ms: longer than a double-click takes
const BUTTONS = "form[method=post] button";

const places = new WeakMap(); // where each button was seen last, on the document
let led = null; // where the focus was put, and
let until = 0; // before which no key presses anything there

/** Let those buttons rest that stand somewhere else than before. */
function look() {
  for (const button of document.querySelectorAll(BUTTONS)) {
    const { x, y } = button.getBoundingClientRect();
    const [place, before] = [{ x: x + scrollX, y: y + scrollY }, places.get(button)];
    places.set(button, place);
    const isMoved = !before || Math.abs(before.x - place.x) > 1 || Math.abs(before.y - place.y) > 1;
    if (isMoved) button.animate({ pointerEvents: ["none", "none"] }, SETTLED);
  }
}

/** Put the focus on a row whose neighbour has left: Enter, once more or held, is still meant for that one. */
export function lead(row) {
  row.focus({ preventScroll: true });
  led = row;
  until = performance.now() + SETTLED;
}

/** A key: whoever presses another one than Enter knows where the focus is. */
function press(event) {
  if (!["Enter", " "].includes(event.key)) return void (led = null);
  if (!event.repeat && (event.target !== led || performance.now() >= until)) return;
  if (!event.target.closest?.(`${BUTTONS}, [data-row]`)) return;
  event.preventDefault();
  event.stopPropagation();
}

/** Begin to look; whatever changes the document can move what stands on it. */
export function settle() {
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document.body, all);
  addEventListener("resize", look);
  look();
  document.addEventListener("keydown", press, true);
}
