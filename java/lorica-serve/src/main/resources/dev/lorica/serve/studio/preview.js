// What a run would do, before it begins: in plain words, its memory, and its data as the model sees them.
import { bytes, h } from "./elements.js";

const PARTS = ["weights", "adapter", "gradients", "optimizer", "activations", "workspace"];
const COLORS = ["#4c8bd0", "#d08a3c", "#3fa37c", "#b16ba3", "#a8953a", "#8a9099"];

export function showPlan(place, plan) {
  place.replaceChildren(
    h("div", { class: "card" }, h("h2", { tabindex: "-1" }, "What it would do"),
      h("ul", {}, plan.words.map(words => h("li", {}, words))),
      plan.fits ? null : h("p", { class: "bad" }, "It does not fit into the memory, and would be refused."),
      memory(plan.planned_memory_bytes)),
    h("div", { class: "card" }, h("h2", {}, "Lengths of the examples"), lengths(plan)),
    h("div", { class: "card" }, examples(plan)));
}

function memory(planned) {
  const bar = h("div", { class: "share", "aria-hidden": "true" });
  const list = h("dl", { class: "facts" });
  PARTS.forEach((part, i) => {
    const piece = h("span", {});
    piece.style.width = `${(100 * planned[part]) / planned.available}%`;
    piece.style.background = COLORS[i];
    bar.append(piece);
    const swatch = h("span", { class: "swatch" });
    swatch.style.background = COLORS[i];
    list.append(h("dt", {}, swatch, ` ${part}`), h("dd", {}, bytes(planned[part])));
  });
  list.append(h("dt", {}, "together"), h("dd", {}, `${bytes(planned.total)} of ${bytes(planned.available)} that can be had`));
  return h("details", {}, h("summary", {}, "Memory, part by part"), bar, list);
}

function lengths(plan) {
  const most = Math.max(1, ...plan.lengths.map(column => column.examples));
  const limit = plan.data.max_length;
  const bars = h("div", { class: "bars", role: "img", "aria-label": plan.lengths.filter(column => column.examples)
    .map(column => `${column.from} to ${column.to} tokens: ${column.examples}`).join("; ") });
  for (const column of plan.lengths) {
    const bar = h("span", { class: column.from > limit ? "over" : "",
      title: `${column.from} to ${column.to} tokens: ${column.examples} examples` });
    bar.style.height = `${column.examples ? Math.max(3, (100 * column.examples) / most) : 0}%`;
    bars.append(bar);
  }
  const last = plan.lengths[plan.lengths.length - 1];
  const cut = plan.data.over_long
    ? `${plan.data.over_long} are longer than ${limit} tokens (red): ${plan.data.truncated} of them are cut, ${plan.data.dropped} left out.`
    : `None is longer than ${limit} tokens: nothing is cut.`;
  return [bars, h("div", { class: "row spread small soft" }, h("span", {}, "0"), h("span", {}, `${last ? last.to : 0} tokens`)),
    h("p", {}, cut)];
}

function examples(plan) {
  const list = h("div", {});
  const ids = h("input", { type: "checkbox", id: "ids", onchange: () => list.classList.toggle("ids", ids.checked) });
  plan.examples.forEach((example, i) => list.append(h("div", { class: "example" },
    h("div", { class: "small soft" }, `Example ${i + 1}: ${example.length} tokens, ${example.learned} of them learned`
      + (example.length === plan.data.max_length && plan.data.truncated ? "; as long as may be, so perhaps cut" : "")),
    h("div", { class: "tokens" }, example.tokens.map(token => h("span", {
      class: `token${token.learned ? " learned" : ""}${token.control ? " control" : ""}`, title: `token ${token.id}` },
      token.text, h("span", { class: "id" }, String(token.id))))))));
  return [h("h2", {}, "Examples, as the model sees them"),
    h("p", {}, h("span", { class: "token learned" }, "Learned"), " is what is underlined in colour; the rest is only read. ",
      h("span", { class: "token control" }, "Dashed"), " are control tokens. ", `Template: ${plan.data.template}.`),
    h("label", { class: "row" }, ids, "Token by token, with ids"), list];
}
