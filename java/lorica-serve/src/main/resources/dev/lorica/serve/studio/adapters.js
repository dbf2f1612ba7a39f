// Adapters: where each comes from, and its other forms.
import { arrange, attempt, bytes, h, note, number, time } from "./elements.js";
import { get, post } from "./server.js";
import { compare } from "./chat.js";
import { exports } from "./runs.js";

const FORMS = [
  ["peft", "PEFT: a folder for Hugging Face"],
  ["gguf", "GGUF: a folder for llama.cpp's --lora"],
  ["merged", "Merged: a whole model; what was changed is in F16"],
  ["quantized", "Quantized: a whole model, in a type of your choice"],
];
const TYPES = ["Q4_K_M", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0", "F16"];

const WORDS = { waiting: "waits", writing: "is being written", done: "is written", failed: "failed", stopped: "was stopped" };

let list;
let cards = new Map(); // by path, what is shown of an adapter and its card
let written;
let writtenCard;
let states = new Map(); // of exports, by their numbers
let items = new Map(); // likewise, what is shown of an export

export function begin(place) {
  list = h("div", {});
  written = h("ul", { class: "plain", id: "exports" });
  writtenCard = h("div", { class: "card", hidden: true }, h("h2", {}, "Written in other forms"),
    h("p", { class: "small soft" }, "Into the output folder. It goes on without this page."), written);
  place.append(writtenCard, list);
  exports.heard = heard;
}

/** The exports of the server, which tells of them whenever something has changed. */
function heard(all) {
  writtenCard.hidden = !all.length;
  const focused = document.activeElement?.dataset?.export;
  const kept = items;
  items = new Map(all.map(one => {
    const shape = JSON.stringify([one.state, one.message]);
    const known = kept.get(one.id);
    const shown = known?.shape === shape ? known : { shape, item: exportItem(one) };
    shown.item.querySelector(".facts").textContent = exportFacts(one); // the rest stays as it is: somebody may just be pressing its button
    return [one.id, shown];
  }));
  arrange(written, [...items.values()].map(one => one.item));
  if (focused && document.activeElement?.dataset?.export !== focused) written.querySelector(`[data-export="${focused}"]`)?.focus();
  let ended = false;
  for (const one of all) {
    const before = states.get(one.id);
    states.set(one.id, one.state);
    if (before && before !== one.state && !["waiting", "writing"].includes(one.state)) {
      note(`${one.path} ${WORDS[one.state]}${one.message ? `: ${one.message}` : "."}`, one.state === "failed");
      ended = true;
    }
  }
  if (ended && !list.closest("section").hidden) shown();
}

function exportFacts(one) {
  const facts = [`${one.adapter} as ${one.format}${one.type ? `, ${one.type}` : ""}`];
  if (one.bytes) facts.push(bytes(one.bytes));
  if (one.began) facts.push(`${Math.max(0, Math.round(((one.ended || Date.now()) - one.began) / 1000))} s`);
  return facts.join(", ");
}

function exportItem(one) {
  const live = one.state === "waiting" || one.state === "writing";
  const kind = { done: "good", failed: "bad" }[one.state] ?? (live ? "busy" : "soft");
  return h("li", { class: "run", "data-path": one.path, "data-state": one.state },
    h("div", { class: "row spread" }, h("div", {}, h("b", {}, one.path), " ", h("span", { class: kind }, WORDS[one.state])),
      live ? h("button", { "data-export": String(one.id), "aria-label": `Stop writing ${one.path}`,
        onclick: event => attempt(() => post(`/studio/api/exports/${one.id}/stop`, {}), event.currentTarget) }, "Stop") : null),
    h("div", { class: "small soft facts" }),
    one.state === "writing" ? h("progress", { "aria-label": `${one.path} is being written` }) : null,
    one.message ? h("div", { class: `small ${kind}` }, one.message) : null);
}

export function shown() {
  attempt(async () => {
    const { adapters } = await get("/studio/api/adapters");
    const kept = cards;
    cards = new Map(adapters.map(adapter => {
      const shape = JSON.stringify(adapter);
      const known = kept.get(adapter.path);
      return [adapter.path, known?.shape === shape ? known : { shape, card: card(adapter) }];
    }));
    const focused = document.activeElement;
    arrange(list, adapters.length ? [...cards.values()].map(one => one.card)
      : [h("div", { class: "card soft" }, "There are no adapters in the data folder or the output folder. A run makes one.")]);
    if (list.contains(focused) && document.activeElement !== focused) focused.focus(); // where it was moved
  });
}

function facts({ from, data, made }) {
  const known = [];
  const add = (name, value) => { if (value !== undefined && value !== null && value !== "") known.push([name, String(value)]); };
  const base = from?.base_model ?? {};
  add("Base", [base.name, base.file, base.file_type].filter(Boolean).join(", "));
  add("Method", from?.method);
  const lora = from?.lora;
  if (lora) add("LoRA", `rank ${lora.rank ?? lora.r}, alpha ${lora.alpha ?? lora.lora_alpha}`);
  add("Data", data);
  const result = from?.result ?? {};
  add("Steps", result.steps);
  if (result.loss !== undefined) add("Loss", number(result.loss));
  if (result.evaluation?.loss !== undefined) add("Loss, held out", number(result.evaluation.loss));
  add("Template", from?.template?.name ?? from?.template);
  add("Made", time(made));
  return known;
}

function card(adapter) {
  const known = facts(adapter);
  const form = h("select", { id: `form-${adapter.path}`, onchange: () => changed() }, FORMS.map(([value, text]) => h("option", { value }, text)));
  const type = h("select", { id: `type-${adapter.path}` }, TYPES.map(name => h("option", { value: name }, name)));
  const name = h("input", { id: `name-${adapter.path}`, autocomplete: "off", spellcheck: "false" });
  const field = (id, label, input) => h("div", { class: "field" }, h("label", { for: id }, label), input);
  const types = field(`type-${adapter.path}`, "Type", type);
  const changed = () => {
    const whole = form.value === "merged" || form.value === "quantized";
    types.hidden = form.value !== "quantized";
    name.value = `${adapter.path.replaceAll("/", "-")}-${form.value}${whole ? ".gguf" : ""}`;
  };
  changed();
  const write = event => attempt(async () => {
    const body = { path: adapter.path, format: form.value, name: name.value };
    if (form.value === "quantized") body.type = type.value;
    const made = await post("/studio/api/adapters/export", body);
    note(`${made.path} is being written.`);
  }, event.currentTarget);
  return h("article", { class: "card", "data-adapter": adapter.path },
    h("div", { class: "row spread" }, h("h2", {}, adapter.path), h("button", { "aria-label": `Chat with ${adapter.path}`,
      onclick: event => attempt(async () => {
        const { model } = await post("/studio/api/adapters/load", { path: adapter.path });
        compare(model);
        note(`${model} is served, also to programs.`);
      }, event.currentTarget) }, "Chat with it")),
    adapter.served_as ? h("p", { class: "small good" }, `Served as ${adapter.served_as}.`) : null,
    adapter.problem ? h("p", { class: "bad" }, adapter.problem) : null,
    known.length ? h("dl", { class: "facts" }, known.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]))
      : h("p", { class: "soft" }, "Where it comes from is not written beside it."),
    h("details", {}, h("summary", {}, "Write it in another form"),
      h("div", { class: "row end" }, field(`form-${adapter.path}`, "Form", form), types, field(`name-${adapter.path}`, "Name in the output folder", name),
        h("button", { onclick: write, "aria-label": `Write ${adapter.path} in this form` }, "Write"))));
}
