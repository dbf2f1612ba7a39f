// The page: its parts, and which of them is shown.
import { h, note } from "./elements.js";
import { get } from "./server.js";
import * as runs from "./runs.js";
import * as train from "./train.js";
import * as chat from "./chat.js";
import * as adapters from "./adapters.js";

const PARTS = { runs, train, chat, adapters };
const page = name => document.getElementById(`page-${name}`);

function show(settings) {
  const asked = location.hash.slice(1).split("/")[0];
  const name = asked in PARTS ? asked : settings.trains ? "runs" : "chat";
  for (const other of Object.keys(PARTS)) page(other).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Lorica: ${name}`;
  note("");
  PARTS[name].shown?.();
}

function without(name) {
  page(name).append(h("div", { class: "card" }, h("h2", {}, "Nothing is trained from this page"),
    h("p", {}, "The server was started without folders for that. With them, data and models are read from the one, and runs are kept in"
      + " the other:"),
    h("pre", {}, "lorica serve --model … --data-folder DIR --output-folder DIR")));
}

try {
  const settings = await get("/studio/api/settings");
  document.getElementById("model").textContent = settings.model;
  for (const [name, part] of Object.entries(PARTS)) {
    if (settings.trains || name === "chat") part.begin(page(name), settings);
    else without(name);
  }
  const main = document.getElementById("main");
  addEventListener("hashchange", () => { show(settings); main.focus(); });
  // the address says which part is shown, and stays
  document.querySelector(".skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
  show(settings);
  document.body.dataset.ready = "true";
} catch (error) {
  note(error.message, true);
}
