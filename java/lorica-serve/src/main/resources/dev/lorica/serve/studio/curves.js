// Curves of runs over each other: every value as it was logged, and smoothed; each says which it is.
import uPlot from "./uplot.js";
import { h, number } from "./elements.js";

const LIGHT = ["#0072b2", "#c44e00", "#00795a", "#a3368c", "#8a6d00", "#5c5c5c"];
const DARK = ["#6cb8ff", "#ff9a57", "#45d0a5", "#ef93d6", "#e6c84b", "#bdbdbd"];
const dark = matchMedia("(prefers-color-scheme: dark)");

export const color = index => (dark.matches ? DARK : LIGHT)[index % LIGHT.length];
export const onTheme = changed => dark.addEventListener("change", changed);

/** An exponential moving average that begins without a bias: Adam's correction, as TensorBoard has it. */
export function smooth(values, weight) {
  let sum = 0;
  let power = 1;
  return values.map(value => {
    sum = weight * sum + (1 - weight) * value;
    power *= weight;
    return sum / (1 - power);
  });
}

/** Numbers at an axis, with as many digits as it takes to tell them apart. */
export function tickLabels(ticks) {
  const most = Math.max(...ticks.map(Math.abs));
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : most;
  if (!(most > 0) || !(step > 0)) return ticks.map(String);
  const digits = Math.min(12, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))); // behind the point
  if (most >= 0.01 || digits <= 4) return ticks.map(tick => tick.toLocaleString("en", { maximumFractionDigits: digits + 1 }));
  const behind = Math.max(0, digits + Math.floor(Math.log10(most) + 1e-9)); // of the first digit
  return ticks.map(tick => (tick === 0 ? "0" : tick.toExponential(behind)));
}

const faint = hex => `${hex}99`;

export class Chart {
  /** @param what {title, value, held: field of evaluations or null, wide, smoothed} */
  constructor(place, what) {
    this.what = what;
    this.place = h("div", { class: "plot", role: "img" });
    this.table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${what.title} as numbers` });
    this.details = h("details", { ontoggle: () => this.fillTable() }, h("summary", {}, "As numbers"), this.table);
    this.card = h("div", { class: `card ${what.wide ? "wide" : ""}` }, h("h3", {}, what.title), this.place, this.details);
    place.append(this.card);
    this.lines = [];
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  width() {
    return Math.max(220, Math.floor(this.place.clientWidth));
  }

  resize() {
    if (this.plot && this.place.clientWidth > 0) this.plot.setSize({ width: this.width(), height: this.what.wide ? 300 : 190 });
  }

  /** @param runs [{name, color, records}] */
  draw(runs, weight) {
    const { value, held, smoothed } = this.what;
    this.lines = [];
    for (const run of runs) {
      const logged = run.records.filter(record => Number.isFinite(record[value]));
      const steps = logged.map(record => record.step);
      const values = logged.map(record => record[value]);
      if (values.length) {
        const raw = { stroke: smoothed ? faint(run.color) : run.color, width: smoothed ? 1 : 1.5 };
        this.lines.push({ label: `${run.name}, raw`, steps, values, ...raw });
        if (smoothed) {
          this.lines.push({ label: `${run.name}, smoothed`, steps, values: smooth(values, weight), stroke: run.color, width: 2.5 });
        }
      }
      const evaluations = held ? run.records.filter(record => Number.isFinite(record[held])) : [];
      if (evaluations.length) {
        this.lines.push({ label: `${run.name}, held out`, steps: evaluations.map(record => record.step),
          values: evaluations.map(record => record[held]), stroke: run.color, width: 1.5, dash: [6, 4],
          points: { show: true, size: 7, fill: getComputedStyle(document.documentElement).getPropertyValue("--card") } });
      }
    }
    this.card.hidden = !this.lines.length;
    if (!this.lines.length) return;
    const shape = JSON.stringify(this.lines.map(({ label, stroke }) => [label, stroke]));
    const data = uPlot.join(this.lines.map(line => [line.steps, line.values]));
    if (shape !== this.shape || !this.plot) {
      this.shape = shape;
      this.plot?.destroy();
      this.plot = new uPlot(this.options(), data, this.place);
    } else {
      this.plot.setData(data);
    }
    this.place.setAttribute("aria-label", this.inWords());
    this.fillTable();
  }

  options() {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--soft");
    const grid = { stroke: style.getPropertyValue("--line"), width: 1 };
    const axis = { stroke: ink, grid, ticks: grid, font: "12px system-ui" };
    return {
      width: this.width(), height: this.what.wide ? 300 : 190,
      scales: { x: { time: false } },
      axes: [{ ...axis, space: 60 }, { ...axis, values: (plot, ticks) => tickLabels(ticks),
        size: (plot, labels) => Math.max(40, 16 + 7.5 * Math.max(0, ...(labels ?? []).map(label => label.length))) }],
      series: [{ label: "step" }, ...this.lines.map(({ label, stroke, width, dash, points }) => ({
        label, stroke, width, dash, spanGaps: true, points: points ?? { show: false }, value: (plot, value) => number(value) }))],
      legend: { markers: { fill: (plot, i) => this.lines[i - 1]?.stroke } },
      cursor: { drag: { x: true, y: false } },
    };
  }

  inWords() {
    return `${this.what.title}. ` + this.lines.map(({ label, values }) =>
      `${label}: ${values.length} values, from ${number(values[0])} to ${number(values[values.length - 1])}`).join("; ");
  }

  fillTable() {
    if (!this.details.open) return;
    const all = uPlot.join(this.lines.map(line => [line.steps, line.values]));
    this.table.replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, h("th", { class: "number" }, "step"), this.lines.map(line => h("th", { class: "number" }, line.label)))),
      h("tbody", {}, all[0].map((step, i) => h("tr", {}, h("td", { class: "number" }, String(step)),
        this.lines.map((line, j) => h("td", { class: "number" }, number(all[j + 1][i] ?? null))))))));
  }
}
