/* Means over time: one line per set over the runs of a suite, with marks where benchmark or set changed. */
import { $, change, make, shown, state } from "./state.js";

const WIDTH = 1100, HEIGHT = 320, LEFT = 70, RIGHT = 40, TOP = 16, BOTTOM = 46;
const COLOURS = ["c0", "c1", "c2", "c3", "c4", "c5"];
let chosen = { output: "", benchmark: "", arms: null };

/** `open` shows a run as side B. */
export function showHistory(nights, doc, open) {
  const means = nights.flatMap((night) => night.means);
  const outputs = [...new Set(means.map((one) => one.output))], benchmarks = [...new Set(means.map((one) => one.benchmark))];
  chosen.output = outputs.includes(state.number) ? state.number : outputs[0];
  if (!benchmarks.includes(chosen.benchmark)) chosen.benchmark = benchmarks.at(-1);
  const arms = [...new Set(means.filter((one) => one.benchmark === chosen.benchmark).map((one) => one.arm))].slice(0, 12);
  arms.sort((one, other) => [state.armB, state.armA].includes(other) - [state.armB, state.armA].includes(one));
  chosen.arms ??= new Set([state.armA, state.armB]);
  const again = () => showHistory(nights, doc, open);
  const output = select("Number", outputs, chosen.output, (value) => { change({ number: value }); again(); });
  const benchmark = select("Benchmark", benchmarks, chosen.benchmark, (value) => { chosen.benchmark = value; again(); });
  const boxes = arms.map((arm) => {
    const box = make("input", { type: "checkbox", checked: chosen.arms.has(arm) });
    box.addEventListener("change", () => { if (box.checked) chosen.arms.add(arm); else chosen.arms.delete(arm); again(); });
    return make("label", { className: chosen.arms.has(arm) ? COLOURS[arms.indexOf(arm) % COLOURS.length] : "" }, box, arm);
  });
  const lines = arms.filter((arm) => chosen.arms.has(arm));
  const find = (night, arm) => night.means.find((one) => one.arm === arm && one.output === chosen.output && one.benchmark === chosen.benchmark);
  $("history").replaceChildren(
    make("div", { className: "bar" }, output, benchmark, ...boxes),
    nights.length ? chart(nights, lines, arms, find, open) : make("p", {}, "No finished run of this suite is next to this one."),
    make("p", { className: "dim" }, "Whiskers are 95 % intervals over source images. A dashed line marks a run with other rows of the benchmark, or another version of a shown set. Choose a point to open its run as B."),
    table(nights, lines, find, open));
}

function chart(nights, lines, arms, find, open) {
  const values = nights.flatMap((night) => lines.map((arm) => find(night, arm)).filter(Boolean)).flatMap((one) => one.interval ?? [one.mean]);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const x = (index) => LEFT + (nights.length > 1 ? (index / (nights.length - 1)) * (WIDTH - LEFT - RIGHT) : (WIDTH - LEFT - RIGHT) / 2);
  const y = (value) => TOP + (1 - (value - low) / span) * (HEIGHT - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${chosen.output} over ${nights.length} runs` });
  for (const share of [0, 0.5, 1]) {
    const value = low + share * span;
    svg.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"), text(LEFT - 8, y(value) + 4, shown(value), "end"));
  }
  const every = Math.ceil(nights.length / 8);
  nights.forEach((night, index) => {
    if (index % every === 0) svg.append(text(x(index), HEIGHT - BOTTOM + 20, night.finished.slice(5, 16).replace("T", " "), "middle"));
    const before = nights[index - 1];
    const changed = before && (before.benchmarks[chosen.benchmark] !== night.benchmarks[chosen.benchmark] || lines.some((arm) => before.sets[arm] !== night.sets[arm]));
    if (changed) svg.append(line((x(index) + x(index - 1)) / 2, TOP, (x(index) + x(index - 1)) / 2, HEIGHT - BOTTOM, "break"));
  });
  lines.forEach((arm, place) => {
    const colour = COLOURS[arms.indexOf(arm) % COLOURS.length], shift = (place - (lines.length - 1) / 2) * 7;
    const points = nights.map((night, index) => ({ night, mean: find(night, arm), x: x(index) + shift })).filter((one) => one.mean);
    points.forEach((one, index) => {
      const before = points[index - 1];
      if (before) svg.append(line(before.x, y(before.mean.mean), one.x, y(one.mean.mean), `path ${colour}`));
      if (one.mean.interval) svg.append(line(one.x, y(one.mean.interval[0]), one.x, y(one.mean.interval[1]), `whisker ${colour}`));
      const dot = make("svg:circle", { cx: one.x, cy: y(one.mean.mean), r: 5, class: colour, tabindex: "0" }, make("svg:title", {}, `${arm} ${shown(one.mean.mean)}, n = ${one.mean.n}, ${one.night.id}`));
      dot.addEventListener("click", () => open(one.night.id));
      dot.addEventListener("keydown", (event) => { if (event.key === "Enter") open(one.night.id); });
      svg.append(dot);
    });
  });
  return svg;
}

function table(nights, lines, find, open) {
  const rows = [...nights].reverse().map((night) => {
    const button = make("button", { type: "button" }, night.id);
    button.addEventListener("click", () => open(night.id));
    const tone = { pass: "good", worse: "bad", inconclusive: "open" }[night.outcome] ?? "";
    const cells = lines.map((arm) => find(night, arm)).map((one) => make("td", { className: "n" }, one ? `${shown(one.mean)}${one.interval ? ` (${shown(one.interval[0])} to ${shown(one.interval[1])})` : ""}, n = ${one.n}` : "–"));
    return make("tr", {}, make("td", {}, button), make("td", { className: tone, title: night.line ?? "" }, night.outcome ?? "–"), ...cells, make("td", {}, night.commit));
  });
  return make("table", {}, make("tr", {}, ...["run", "gate", ...lines, "commit"].map((name) => make("th", {}, name))), ...rows);
}

function select(label, values, value, use) {
  const element = make("select", { ariaLabel: label }, ...values.map((one) => make("option", { value: one, selected: one === value }, one)));
  element.addEventListener("change", () => use(element.value));
  return element;
}

const line = (x1, y1, x2, y2, name) => make("svg:line", { x1, y1, x2, y2, class: name });
const text = (x, y, words, anchor, name = "") => make("svg:text", { x, y, "text-anchor": anchor, class: name }, words);
