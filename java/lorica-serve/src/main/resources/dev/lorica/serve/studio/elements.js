// Elements, made of what they are to be; text is always text, never markup.

/** h("p", {class: "soft"}, "text", h("b", {}, "more")); names that begin with "on" are listeners. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value === "boolean") element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return element;
}

/** Has these elements in a place, in their order. Those that stay are not moved: somebody may just be typing there, or pressing a button. */
export function arrange(place, elements) {
  const wanted = new Set(elements);
  for (const child of [...place.childNodes]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, i) => { if (place.children[i] !== element) place.insertBefore(element, place.children[i] ?? null); });
}

/** Says something to everybody: shown above the page, and read by screen readers. */
export function note(text, bad = false) {
  const place = document.getElementById("note");
  place.textContent = text;
  place.className = bad ? "bad" : "";
}

/** A button that copies what stands in an element. Where pages may not write to the clipboard (plain HTTP), it is marked, and copied so. */
export function copyButton(element, what) {
  return h("button", { type: "button", "aria-label": `Copy ${what}`, onclick: async () => {
    const text = element.textContent;
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else {
        getSelection().selectAllChildren(element);
        if (!document.execCommand("copy")) throw new Error();
      }
      note(`Copied ${what}.`);
    } catch {
      getSelection().selectAllChildren(element);
      note("The browser does not let this page copy; the text is marked.", true);
    }
  } }, "Copy");
}

/**
 * Asks in a dialog. Resolves to what `answer` returns, or null where it was left.
 * @param content elements
 */
export function ask(title, content, yes, answer = () => true) {
  return new Promise(resolve => {
    const dialog = h("dialog", { "aria-labelledby": "asked" }, h("form", { method: "dialog" }, h("h2", { id: "asked" }, title), content,
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => dialog.close("") }, "Leave it"),
        h("button", { class: "first", value: "yes" }, yes))));
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? answer() : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Does something, and says what went wrong. Buttons that began it are off meanwhile. */
export async function attempt(work, button = null) {
  const had = button !== null && document.activeElement === button;
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (error) {
    note(error.message, true);
    return undefined;
  } finally {
    if (button) button.disabled = false;
    if (had && document.activeElement === document.body) button.focus(); // which went when it was off
  }
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit++; }
  return `${count.toFixed(unit && count < 10 ? 1 : 0)} ${units[unit]}`;
}

export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(size < 100 ? 4 : 1);
}

export function time(millis) {
  return millis ? new Date(millis).toLocaleString() : "–";
}
