// The same question to several models side by side, with one seed.
import { attempt, h, note } from "./elements.js";
import { chat, get, post } from "./server.js";

const COLUMNS = ["Base", "Adapter A", "Adapter B"];
const PLACE = /^(.*) \(load\)$/;

let settings;
let columns = [];
let places = {};
let abort = null;
let shows = 0;

export function begin(place, given) {
  settings = given;
  const input = (id, label, attributes) => {
    places[id] = h("input", { id: `chat-${id}`, ...attributes });
    return h("div", { class: "field" }, h("label", { for: `chat-${id}` }, label), places[id]);
  };
  places.text = h("textarea", { id: "chat-text", rows: "2", onkeydown: event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
  } });
  places.ask = h("button", { class: "first", id: "chat-ask", onclick: ask }, "Ask all");
  places.stop = h("button", { id: "chat-stop", disabled: true, onclick: () => abort?.abort() }, "Stop");
  columns = COLUMNS.map((title, index) => column(title, index));
  place.append(
    h("div", { class: "card" },
      h("div", { class: "field" }, h("label", { for: "chat-text" }, "Question"), places.text),
      h("div", { class: "row end" },
        input("seed", "Seed", { type: "number", value: "42", step: "1" }),
        input("temperature", "Temperature", { type: "number", value: "0.7", min: "0", max: "2", step: "0.1" }),
        input("tokens", "Most tokens", { type: "number", value: "128", min: "1", step: "1" }),
        places.ask, places.stop, h("button", { onclick: clear }, "Clear")),
      h("p", { class: "small soft" }, "All are asked with the same seed; Enter asks, Shift+Enter begins a line.")),
    h("div", { class: "chats" }, columns.map(one => one.card)));
}

function column(title, index) {
  const one = { title, turns: [], log: h("div", { class: "log", role: "log", "aria-label": `${title}: conversation`, "aria-live": "polite" }) };
  one.model = h("select", { id: `chat-model-${index}`, "aria-label": `Model of ${title}` });
  const output = h("output", {}, "1.00");
  one.scale = h("input", { id: `chat-scale-${index}`, type: "range", min: "0", max: "2", step: "0.05", value: "1",
    oninput: () => { output.textContent = Number(one.scale.value).toFixed(2); } });
  one.card = h("div", { class: "card" }, h("h2", {}, title), one.model,
    index === 0 ? h("p", { class: "small soft" }, "The model as it is in its file.")
      : h("div", { class: "row small" }, h("label", { for: `chat-scale-${index}` }, "Scale of the adapter"), one.scale, output),
    one.log);
  return one;
}

/** What can be asked: what is served, and what lies in the folders and is loaded when it is chosen. */
export function shown() {
  const mine = ++shows;
  attempt(async () => {
    const served = (await get("/v1/models")).data;
    const adapters = served.filter(model => model.parent).map(model => model.id);
    const others = settings.trains ? (await get("/studio/api/adapters")).adapters.filter(one => !one.served_as && !adapters.includes(one.path)) : [];
    if (mine !== shows) return; // an answer from before an adapter was loaded
    columns.forEach((one, index) => {
      const before = one.model.value;
      const options = index === 0 ? [settings.model] : ["", ...adapters, ...others.map(other => `${other.path} (load)`)];
      one.model.replaceChildren(...options.map(name => h("option", { value: name }, name || "none")));
      one.model.value = options.includes(before) ? before : options.includes(`${before}`.replace(PLACE, "$1"))
        ? before.replace(PLACE, "$1") : index === 0 ? settings.model : "";
    });
  });
}

/** Chooses an adapter that is served, in the first place that is free. */
export function compare(name) {
  shows++; // what is being asked for knows nothing of it
  const free = columns.slice(1).find(one => !one.model.value) ?? columns[1];
  if (![...free.model.options].some(option => option.value === name)) free.model.append(h("option", { value: name }, name));
  free.model.value = name;
  location.hash = "#chat";
}

function clear() {
  for (const one of columns) { one.turns = []; one.log.replaceChildren(); }
}

function turn(one, who, text) {
  const said = h("span", {}, text);
  one.log.append(h("div", { class: `turn${who === "you" ? " mine" : ""}` }, h("span", { class: "who" }, who), said));
  return said;
}

async function load(one) {
  const place = one.model.value.match(PLACE)?.[1];
  if (!place) return;
  const { model } = await post("/studio/api/adapters/load", { path: place });
  const option = [...one.model.options].find(other => other.value === one.model.value);
  option.value = model;
  option.textContent = model;
  one.model.value = model;
}

async function ask() {
  const text = places.text.value.trim();
  if (!text || places.ask.disabled) return;
  note("");
  places.ask.disabled = true;
  places.stop.disabled = false;
  abort = new AbortController();
  const seed = Number(places.seed.value) || 0;
  const body = { seed, temperature: Number(places.temperature.value), max_tokens: Number(places.tokens.value) };
  await Promise.all(columns.filter(one => one.model.value).map(async one => {
    turn(one, "you", text);
    let said = null;
    let answer = "";
    try {
      await load(one);
      const scale = Number(one.scale.value);
      const isAdapter = one.model.value !== settings.model;
      const name = isAdapter && scale !== 1 ? `${one.model.value} × ${scale}` : one.model.value;
      one.log.setAttribute("aria-busy", "true"); // a screen reader hears the answer, not each piece of it
      said = turn(one, name, "…");
      one.turns.push({ role: "user", content: text });
      const asked = { ...body, model: one.model.value, messages: one.turns };
      if (isAdapter && scale !== 1) asked.adapter_scale = scale;
      for await (const piece of chat(asked, abort.signal)) {
        answer += piece;
        said.textContent = answer;
      }
      said.textContent = answer || "(nothing)";
      one.turns.push({ role: "assistant", content: answer });
    } catch (error) {
      if (error.name === "AbortError") one.turns.push({ role: "assistant", content: answer });
      else {
        one.turns.pop();
        (said ?? turn(one, "error", "")).textContent = error.message;
        said?.classList.add("bad");
      }
    } finally {
      one.log.removeAttribute("aria-busy");
    }
  }));
  places.ask.disabled = false;
  places.stop.disabled = true;
  places.text.value = "";
  places.text.focus();
}
