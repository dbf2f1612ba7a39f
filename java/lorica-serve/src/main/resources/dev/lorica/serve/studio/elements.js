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

/** Says something to everybody: shown above the page, and read by screen readers. */
export function note(text, bad = false) {
  const place = document.getElementById("note");
  place.textContent = text;
  place.className = bad ? "bad" : "";
}

/** Does something, and says what went wrong. Buttons that began it are off meanwhile. */
export async function attempt(work, button = null) {
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (error) {
    note(error.message, true);
    return undefined;
  } finally {
    if (button) button.disabled = false;
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
