// Runs: a list of them, the curves of those that are chosen, what they answer and say.
import { arrange, ask, attempt, bytes, h, note, number, time } from "./elements.js";
import { follow, post } from "./server.js";
import { Chart, color, onTheme } from "./curves.js";

const CHOSEN = "lorica-runs";
const WORDS = {
  queued: ["waits", "busy"], running: ["runs", "busy"], stopping: ["is stopping", "busy"], stopped: ["stopped", ""],
  finished: ["finished", "good"], failed: ["failed", "bad"],
};

let runs = [];
let chosen = null; // names, in the order in which they were chosen
let seen = new Map(); // name to {records, answers, lines}
let unfollow = null;
let charts = [];
let weight = 0.8;
let places = {};
let due = false;
let pressed = null; // the button that had the focus until it was pressed
/** Who hears of adapters that are written in other forms. */
export const exports = { heard: null };

const remembered = () => { try { return JSON.parse(sessionStorage.getItem(CHOSEN)); } catch { return null; } };

export function begin(place) {
  chosen = remembered();
  places.list = h("ul", { class: "plain" });
  places.lost = h("p", { class: "bad", role: "status" });
  places.said = h("p", { class: "unseen", role: "status" });
  places.charts = h("div", { class: "charts" });
  places.empty = h("p", { class: "soft" }, "Choose a run, and its curves are here.");
  places.answers = h("div", {});
  places.words = h("div", {});
  const value = h("output", {}, weight.toFixed(2));
  const slider = h("input", { id: "smoothing", type: "range", min: "0", max: "0.98", step: "0.02", value: String(weight),
    oninput: () => { weight = Number(slider.value); value.textContent = weight.toFixed(2); draw(); } });
  place.append(h("div", { class: "columns" },
    h("div", { class: "card" }, h("div", { class: "row spread" }, h("h2", {}, "Runs"), h("a", { href: "#train" }, "New run")),
      places.lost, places.said, places.list),
    h("div", {},
      h("div", { class: "row" }, h("label", { for: "smoothing" }, "Smoothing of curves"), slider, value,
        h("span", { class: "soft small" }, "thin: as logged; thick: smoothed; dashed: held out")),
      places.empty, places.charts, places.answers, places.words)));
  charts = [
    { title: "Loss", value: "loss", held: "eval_loss", wide: true, smoothed: true },
    { title: "Learning rate", value: "learning_rate" },
    { title: "Gradient norm", value: "grad_norm", smoothed: true },
    { title: "Tokens per second", value: "tokens_per_second", smoothed: true },
  ].map(what => new Chart(places.charts, what));
  onTheme(() => { list(); draw(); });
  followThem();
}

export function shown() {
  draw();
}

/** Shows a run, alone. */
export function choose(name) {
  chosen = [name];
  remember();
  followThem();
}

function remember() {
  sessionStorage.setItem(CHOSEN, JSON.stringify(chosen));
}

function followThem() {
  unfollow?.();
  const names = chosen ?? [];
  const before = seen; // which is shown until it comes again
  seen = new Map(names.map(name => [name, before.get(name) ?? { records: [], answers: [], lines: [] }]));
  unfollow = follow(names, heard, error => { places.lost.textContent = error ? `${error.message} Trying again.` : ""; });
  draw();
}

function heard(event) {
  if (event.type === "runs") {
    runs = event.runs;
    const known = new Set(runs.map(run => run.name));
    const first = runs.find(run => run.state === "running" || run.state === "stopping") ?? runs[0];
    if (chosen === null && first) choose(first.name);
    if (chosen?.some(name => !known.has(name))) {
      chosen = chosen.filter(name => known.has(name));
      remember();
      followThem();
    }
    tellProgress();
    list();
    return;
  }
  if (event.type === "exports") {
    exports.heard?.(event.exports);
    return;
  }
  const run = seen.get(event.run);
  if (!run) return;
  if (event.type === "begin") { run.records = []; run.answers = []; run.lines = []; }
  if (event.type === "record") run.records.push(event.value);
  if (event.type === "answer") run.answers.push(event.value);
  if (event.type === "line") run.lines.push(event.text);
  if (!due) {
    due = true;
    setTimeout(() => { due = false; draw(); }, 100);
  }
}

let told = new Map(); // name to what was said of it

/** What a screen reader hears of runs that go on: that they begin and end, and each evaluation; not every step. */
function tellProgress() {
  const words = [];
  for (const run of runs) {
    const [word] = WORDS[run.state];
    const now = run.eval_loss === undefined ? word : `${word}, at step ${run.step} held out ${number(run.eval_loss)}`;
    if (told.has(run.name) && told.get(run.name) !== now) words.push(`${run.name} ${now}.`);
    told.set(run.name, now);
  }
  if (words.length) places.said.textContent = words.join(" ");
}

async function rename(run) {
  const input = h("input", { id: "new-name", required: true, maxlength: "64", autocomplete: "off", spellcheck: "false", value: run.name });
  const name = await ask(`Rename ${run.name}`, h("div", { class: "field" }, h("label", { for: "new-name" }, "Its new name"), input,
    h("p", { class: "help" }, "Its folder in the output folder is renamed too.")), "Rename", () => input.value.trim());
  if (!name || name === run.name) return;
  const wasChosen = chosen?.includes(run.name); // until the server tells that there is none of that name any more
  await post(`/studio/api/runs/${encodeURIComponent(run.name)}/rename`, { to: name });
  if (wasChosen) {
    chosen = [...chosen.filter(one => one !== run.name && one !== name), name];
    remember();
    followThem();
  }
  note(`${run.name} is called ${name} now.`);
}

async function remove(run) {
  const path = `/studio/api/runs/${encodeURIComponent(run.name)}/delete`;
  const { files, bytes: size } = await post(path, { dry_run: true });
  const sure = await ask(`Delete ${run.name}?`, h("p", {},
    `Its adapter, checkpoints, logs and all else in its folder: ${files} files, ${bytes(size)}. There is no way back.`), "Delete");
  if (!sure) return;
  await post(path, {});
  note(`${run.name} is deleted.`);
}

function act(name, verb, body, button) {
  pressed = `${verb} ${name}`;
  attempt(async () => {
    await post(`/studio/api/runs/${encodeURIComponent(name)}/${verb}`, body);
    note(verb === "stop" ? `${name} was asked to stop.` : `${name} was put into the queue.`);
  }, button);
}

function list() {
  const focused = document.activeElement?.dataset?.focus ?? (document.activeElement === document.body ? pressed : null);
  if (!runs.length) {
    places.list.replaceChildren(h("li", { class: "soft" }, "There are none yet."));
    return;
  }
  const before = new Map([...places.list.children].map(item => [item.dataset.run, item]));
  const items = runs.map(run => {
    const old = before.get(run.name);
    const kept = old?.dataset.shape === shape(run) ? old : item(run);
    kept.querySelector(".facts").textContent = factsOf(run); // the rest stays as it is: somebody may just be pressing a button of it
    return kept;
  });
  arrange(places.list, items);
  if (focused && document.activeElement?.dataset?.focus !== focused) {
    const same = places.list.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
    const box = places.list.querySelector(`[data-focus="${CSS.escape(`box ${focused.slice(focused.indexOf(" ") + 1)}`)}"]`);
    const next = same ?? box ?? places.list.querySelector("input"); // a button may be gone, because what it did is done
    next?.focus();
    if (document.activeElement === next) pressed = null; // a button that is still switched off takes no focus
  }
}

const indexOf = run => (chosen ?? []).indexOf(run.name);
const shape = run => JSON.stringify([run.state, run.message, run.can_resume, run.can_change, indexOf(run), color(Math.max(0, indexOf(run)))]);

function factsOf(run) {
  const facts = [""];
  if (run.step) facts.push(`step ${run.step}`);
  if (run.loss !== undefined) facts.push(`loss ${number(run.loss)}`);
  if (run.eval_loss !== undefined) facts.push(`held out ${number(run.eval_loss)}`);
  return facts.join(", ");
}

function item(run) {
  const index = indexOf(run);
  const [word, kind] = WORDS[run.state];
  const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
  if (index >= 0) swatch.style.background = color(index);
  const box = h("input", { type: "checkbox", "data-focus": `box ${run.name}`, checked: index >= 0, onchange: () => {
    chosen = box.checked ? [...(chosen ?? []), run.name] : chosen.filter(name => name !== run.name);
    remember();
    followThem();
    list();
  } });
  const button = (verb, text, body = {}) => h("button", { "data-focus": `${verb} ${run.name}`, "aria-label": `${text}: ${run.name}`,
    onclick: event => act(run.name, verb, body, event.currentTarget) }, text);
  const other = (verb, text, work) => h("button", { class: "plain", "data-focus": `${verb} ${run.name}`, "aria-label": `${text}: ${run.name}`,
    onclick: () => { note(""); attempt(() => work(run)); } }, text);
  return h("li", { class: "run", "data-run": run.name, "data-state": run.state, "data-shape": shape(run) },
    h("label", {}, box, swatch, run.name),
    h("div", { class: "small" }, h("span", { class: kind }, word), h("span", { class: "facts" })),
    run.message ? h("div", { class: `small ${run.state === "failed" ? "bad" : "soft"}` }, run.message) : null,
    h("div", { class: "small soft" }, time(run.created)),
    h("div", { class: "row" },
      run.state === "running" ? button("stop", "Stop and save") : null,
      run.state === "queued" ? button("stop", "Take out of the queue") : null,
      run.state === "stopping" ? button("stop", "End at once", { now: true }) : null,
      run.can_resume ? button("resume", "Go on") : null,
      run.can_change ? other("rename", "Rename", rename) : null,
      run.can_change ? other("delete", "Delete", remove) : null));
}

function draw() {
  const all = [...seen].map(([name, run], index) => ({ name, color: color(index), ...run }));
  charts.forEach(chart => chart.draw(all, weight));
  places.empty.hidden = all.some(run => run.records.length);
  places.empty.textContent = all.length ? "There are no values yet." : "Choose a run, and its curves are here.";
  answers(all);
  words(all);
}

/** The same questions at every evaluation, a table for each. */
function answers(all) {
  const cards = [];
  for (const run of all) {
    const questions = [...new Set(run.answers.map(answer => answer.question))];
    for (const question of questions) {
      cards.push(h("div", { class: "card" }, h("h3", {}, question), h("p", { class: "small soft" }, `${run.name}, at every evaluation`),
        h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Answers to ${question}` }, h("table", {},
          h("thead", {}, h("tr", {}, h("th", { class: "number" }, "step"), h("th", {}, "answer"))),
          h("tbody", {}, run.answers.filter(answer => answer.question === question).map(answer => h("tr", {},
            h("td", { class: "number" }, answer.step === 0 ? "before" : String(answer.step)),
            h("td", {}, answer.answer ?? "–"))))))));
    }
  }
  replace(places.answers, cards);
}

function words(all) {
  const open = new Set([...places.words.querySelectorAll("details[open]")].map(details => details.dataset.key));
  const details = (key, title, text) => h("details", { "data-key": key, open: open.has(key) }, h("summary", {}, title),
    h("pre", { class: "lines", tabindex: "0", role: "region", "aria-label": title }, text));
  replace(places.words, all.filter(run => run.lines.length || runs.some(one => one.name === run.name && one.command)).map(run => {
    const about = runs.find(other => other.name === run.name);
    return h("div", { class: "card" }, h("h3", {}, run.name),
      about?.command ? details(`command ${run.name}`, "The command that it is", about.command) : null,
      details(`lines ${run.name}`, `What it says (${run.lines.length} lines)`, run.lines.join("\n")));
  }));
}

/** Leaves what is there alone where nothing has changed: a selection, a place in a list. */
function replace(place, children) {
  const next = h("div", {}, children);
  if (next.innerHTML !== place.innerHTML) place.replaceChildren(...next.childNodes);
}
