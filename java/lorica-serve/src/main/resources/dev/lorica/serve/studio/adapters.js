// Adapters: where each comes from, and its other forms.
import { attempt, bytes, h, note, number, time } from "./elements.js";
import { get, post } from "./server.js";
import { compare } from "./chat.js";

const FORMS = [
  ["peft", "PEFT: a folder for Hugging Face"],
  ["gguf", "GGUF: a folder for llama.cpp's --lora"],
  ["merged", "Merged: a whole model; what was changed is in F16"],
  ["quantized", "Quantized: a whole model, in a type of your choice"],
];
const TYPES = ["Q4_K_M", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0", "F16"];

let list;

export function begin(place) {
  list = h("div", {});
  place.append(list);
}

export function shown() {
  attempt(async () => {
    const { adapters } = await get("/studio/api/adapters");
    list.replaceChildren(...(adapters.length ? adapters.map(card)
      : [h("div", { class: "card soft" }, "There are no adapters in the data folder or the output folder. A run makes one.")]));
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

function card(adapter, index) {
  const known = facts(adapter);
  const form = h("select", { id: `form-${index}`, onchange: () => changed() }, FORMS.map(([value, text]) => h("option", { value }, text)));
  const type = h("select", { id: `type-${index}` }, TYPES.map(name => h("option", { value: name }, name)));
  const name = h("input", { id: `name-${index}`, autocomplete: "off", spellcheck: "false" });
  const result = h("p", { role: "status" });
  const field = (id, label, input) => h("div", { class: "field" }, h("label", { for: id }, label), input);
  const types = field(`type-${index}`, "Type", type);
  const changed = () => {
    const whole = form.value === "merged" || form.value === "quantized";
    types.hidden = form.value !== "quantized";
    name.value = `${adapter.path.replaceAll("/", "-")}-${form.value}${whole ? ".gguf" : ""}`;
  };
  changed();
  const write = event => attempt(async () => {
    result.textContent = "Writing…";
    try {
      const body = { path: adapter.path, format: form.value, name: name.value };
      if (form.value === "quantized") body.type = type.value;
      const made = await post("/studio/api/adapters/export", body);
      result.textContent = `Written: ${made.file}${made.said.bytes ? `, ${bytes(made.said.bytes)}` : ""}`;
    } catch (error) {
      result.textContent = error.message;
      throw error;
    }
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
      h("div", { class: "row end" }, field(`form-${index}`, "Form", form), types, field(`name-${index}`, "Name in the output folder", name),
        h("button", { onclick: write }, "Write")), result));
}
