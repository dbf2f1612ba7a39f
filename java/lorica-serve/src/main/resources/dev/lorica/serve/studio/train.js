// A run to begin: a form of the options of `lorica train`, the YAML and the command line that it means, and what it would do.
import { attempt, copyButton, h, note } from "./elements.js";
import { get, post } from "./server.js";
import { choose } from "./runs.js";
import { showPlan } from "./preview.js";

/** What most runs say, in this order; the rest is below. */
const FIRST = ["model", "data", "eval-split", "epochs", "max-steps", "batch-size", "learning-rate", "lora-r", "lora-alpha",
  "target-modules", "max-length", "chat-template", "logging-steps", "eval-steps", "ask"];
/** One value a line. */
const LINES = new Set(["ask"]);
/** What is said for the user, because the page shows it. */
const SUGGESTED = { "eval-split": "0.1" };

let settings;
let fields = new Map(); // name to {get, set, place}
let files = { data: [], models: [] };
let places = {};
let checking = null;
let checks = 0;

export function begin(place, given) {
  settings = given;
  const options = new Map(settings.options.map(option => [option.name, option]));
  const main = h("div", { class: "fields" });
  const rest = h("div", {});
  const name = h("input", { id: "run-name", required: true, maxlength: "64", autocomplete: "off", oninput: changed });
  name.value = suggestedName();
  places.name = name;
  main.append(h("div", { class: "field" }, h("label", { for: "run-name" }, "Name of the run"), name,
    h("p", { class: "help", id: "run-name-help" }, "Its folder in the output folder.")));
  for (const first of FIRST) if (options.has(first)) main.append(field(options.get(first)));
  const sections = new Map();
  for (const option of settings.options) {
    if (!FIRST.includes(option.name) && option.name !== "ask-at-evals") {
      const title = option.section || "Files";
      if (!sections.has(title)) sections.set(title, h("div", { class: "fields" }));
      sections.get(title).append(field(option));
    }
  }
  for (const [title, grid] of sections) rest.append(h("fieldset", {}, h("legend", {}, title), grid));

  places.yaml = h("textarea", { id: "yaml", rows: "8", spellcheck: "false" });
  places.command = h("pre", { id: "command", tabindex: "0", role: "region", "aria-label": "The command" });
  places.meant = h("pre", { id: "meant", tabindex: "0", role: "region", "aria-label": "The YAML" });
  places.wrong = h("p", { class: "bad", role: "status", id: "wrong" });
  places.plan = h("div", { id: "plan" });
  const file = h("input", { type: "file", accept: ".yaml,.yml", id: "yaml-file", onchange: async () => {
    if (file.files[0]) { places.yaml.value = await file.files[0].text(); await attempt(read); file.value = ""; }
  } });
  const form = h("form", { onsubmit: start, oninput: changed, onchange: changed },
    h("fieldset", {}, h("legend", {}, "A new run"), main),
    h("details", {}, h("summary", {}, "All options"), rest),
    places.wrong,
    h("div", { class: "row" }, h("button", { type: "button", id: "look", onclick: plan }, "Look at the data and the plan"),
      h("button", { class: "first", id: "start" }, "Start")));
  place.append(
    h("div", { class: "card" }, form),
    places.plan,
    h("div", { class: "card" }, h("h2", {}, "The same elsewhere"),
      h("p", { class: "soft small" }, "The command line and the file that this form means. What is read is named as seen from the data folder,"
        + " and what is written as seen from the output folder."),
      h("div", { class: "row spread" }, h("h3", {}, "Command"), copyButton(places.command, "the command")), places.command,
      h("div", { class: "row spread" }, h("h3", {}, "YAML"), copyButton(places.meant, "the YAML")), places.meant,
      h("details", {}, h("summary", {}, "Read a YAML file into the form"),
        h("p", { class: "soft small" }, "Of this program, or of Hugging Face's Trainer, TRL, Axolotl, LLaMA-Factory or mlx-lm."),
        h("div", { class: "field" }, h("label", { for: "yaml-file" }, "A file"), file),
        h("div", { class: "field" }, h("label", { for: "yaml" }, "Or its text"), places.yaml),
        h("button", { type: "button", id: "read", onclick: event => attempt(read, event.currentTarget) }, "Read it"))));
  form.noValidate = true;
  for (const [option, value] of Object.entries(SUGGESTED)) fields.get(option)?.set([value]);
}

export function shown() {
  attempt(async () => {
    files = await get("/studio/api/files");
    for (const { offer } of fields.values()) offer?.();
    changed();
  });
}

function suggestedName() {
  const now = new Date();
  const two = value => String(value).padStart(2, "0");
  return `run-${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

/** A label, an input of the kind that the option needs, and what it is. */
function field(option) {
  const id = `option-${option.name}`;
  const help = h("p", { class: "help", id: `${id}-help` }, option.help);
  const label = h("label", { for: id }, option.name);
  const about = { id, "aria-describedby": `${id}-help` };
  let input;
  let offer = null;
  let get = () => (input.value.trim() === "" ? [] : [input.value.trim()]);
  let set = values => { input.value = values.join(","); };
  if (option.flag) {
    input = h("input", { ...about, type: "checkbox" });
    get = () => (input.checked ? ["true"] : []);
    set = values => { input.checked = values[0] === "true"; };
  } else if (option.name === "data" || LINES.has(option.name)) {
    input = h("textarea", { ...about, rows: "2", spellcheck: "false" });
    get = () => input.value.split("\n").map(line => line.trim()).filter(Boolean);
    set = values => { input.value = values.join("\n"); };
    if (option.name === "data") {
      const pick = h("select", { "aria-label": "Add a file of the data folder", onchange: () => {
        if (pick.value) { set([...get(), pick.value]); pick.value = ""; changed(); }
      } });
      offer = () => pick.replaceChildren(h("option", { value: "" }, files.data.length ? "Add a file…" : "There are no data in the data folder"),
        ...files.data.map(name => h("option", { value: name }, name)));
      fields.set(option.name, { get, set, offer });
      return h("div", { class: "field" }, label, input, pick, h("p", { class: "help", id: `${id}-help` }, "Files below the data folder, one a line; file:0.5 takes half of it."));
    }
    if (option.name === "ask") help.textContent = "Questions, one a line; asked before training and at every evaluation.";
  } else if (option.choices.length) {
    input = h("select", about, h("option", { value: "" }, option.initial ? `${option.initial} (default)` : "–"),
      option.choices.map(choice => h("option", { value: choice }, choice)));
    set = values => { input.value = values[0] ?? ""; };
  } else if (option.name === "model") {
    input = h("select", about);
    offer = () => {
      const before = input.value;
      input.replaceChildren(...[settings.model, ...files.models].map(name => h("option", { value: name }, name)));
      input.value = before || settings.model;
    };
    set = values => {
      if (![...input.options].some(one => one.value === values[0])) input.append(h("option", { value: values[0] }, values[0]));
      input.value = values[0];
    };
    help.textContent = "The model that is served, or one of the data folder.";
    offer();
  } else {
    input = h("input", { ...about, autocomplete: "off", spellcheck: "false", placeholder: option.initial ?? "" });
    if (option.many) {
      get = () => input.value.split(",").map(value => value.trim()).filter(Boolean);
    }
  }
  fields.set(option.name, { get, set, offer });
  return h("div", { class: option.flag ? "field flag" : option.name === "ask" ? "field whole" : "field" }, option.flag ? [input, label] : [label, input], help);
}

function options() {
  const given = {};
  for (const [name, { get }] of fields) {
    const values = get();
    if (values.length) given[name] = values;
  }
  if (given.ask) given["ask-at-evals"] = ["true"];
  return given;
}

/** What the form means now, a moment after the last letter. */
function changed() {
  clearTimeout(checking);
  checking = setTimeout(async () => {
    const mine = ++checks;
    try {
      const meant = await post("/studio/api/check", { name: places.name.value.trim(), options: options() });
      if (mine !== checks) return;
      places.wrong.textContent = meant.problem ?? "";
      places.command.textContent = meant.command ?? "";
      places.meant.textContent = meant.yaml ?? "";
    } catch (error) {
      if (mine === checks) places.wrong.textContent = error.message;
    }
  }, 250);
}

async function read() {
  const meant = await post("/studio/api/read", { yaml: places.yaml.value });
  for (const { set } of fields.values()) set([]);
  for (const [name, values] of Object.entries(meant.options)) fields.get(name)?.set(values);
  note(["Read into the form.", ...meant.notes].join(" "));
  changed();
}

function plan(event) {
  places.plan.replaceChildren(h("div", { class: "card" }, "Looking…"));
  attempt(async () => {
    try {
      showPlan(places.plan, await post("/studio/api/plan", { options: options(), examples: 8 }));
      places.plan.querySelector("h2").focus();
    } catch (error) {
      places.plan.replaceChildren(h("div", { class: "card bad" }, error.message));
      throw error;
    }
  }, event.currentTarget);
}

function start(event) {
  event.preventDefault();
  attempt(async () => {
    const run = await post("/studio/api/runs", { name: places.name.value.trim(), options: options() });
    choose(run.name);
    places.name.value = suggestedName();
    location.hash = "#runs";
  }, event.submitter);
}
