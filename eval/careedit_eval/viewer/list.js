/* The samples that the filters leave, as a list of which only the visible rows exist. */
import { $, direction, make, shown, state } from "./state.js";

const HEIGHT = 60, SPARE = 6;
let rows = [], choose = () => {};

/** The rows of both sides: every sample of B's run, with its place in A's run. */
export function join(a, b) {
  const places = new Map(a.samples.map((one, place) => [keyOf(one), place]));
  return b.samples.map((sample, place) => ({ sample, key: keyOf(sample), b: place, a: places.get(keyOf(sample)) ?? -1 }));
}

export const keyOf = (sample) => `${sample.benchmark}|${sample.id}|${sample.seed}`;

/** The value of the chosen number on one side: "a", "b", or "d" for B - A. */
export function valueOf(row, docs, side) {
  const at = (doc, arm, place) => doc.arms[arm]?.values[state.number]?.[place] ?? null;
  const a = at(docs.a, state.armA, row.a), b = at(docs.b, state.armB, row.b);
  if (side === "a") return a;
  if (side === "b") return b;
  return a === null || b === null ? null : b - a;
}

export function expertsOf(row, docs) {
  return [docs.a.arms[state.armA]?.expert[row.a] ?? "", docs.b.arms[state.armB]?.expert[row.b] ?? ""];
}

function errorsOf(row, docs) {
  const texts = (doc, arm, place) => (doc.arms[arm]?.failed[place] ?? []).map((index) => doc.errors[index]);
  return [...texts(docs.a, state.armA, row.a), ...texts(docs.b, state.armB, row.b)];
}

export function filtered(all, docs) {
  const words = state.text.toLowerCase(), low = state.low === "" ? null : Number(state.low), high = state.high === "" ? null : Number(state.high);
  const found = all.filter((row) => {
    const { sample } = row;
    if (state.benchmark && sample.benchmark !== state.benchmark) return false;
    if (state.kind && sample.kind !== state.kind) return false;
    if (words && !`${sample.id} ${sample.instruction}`.toLowerCase().includes(words)) return false;
    if (state.expert) {
      const [a, b] = expertsOf(row, docs);
      if (state.expert === "≠" ? a === b || !a || !b : a !== state.expert && b !== state.expert) return false;
    }
    if (state.error) {
      const errors = errorsOf(row, docs);
      if (state.error === "any" ? !errors.length : state.error === "none" ? errors.length : !errors.includes(state.error)) return false;
    }
    if (low !== null || high !== null) {
      const value = valueOf(row, docs, state.side);
      if (value === null || (low !== null && value < low) || (high !== null && value > high)) return false;
    }
    return true;
  });
  return state.order ? sorted(found, docs) : found;
}

function sorted(found, docs) {
  const sign = direction(docs.b.outputs.find((one) => one.name === state.number)) || 1;
  const side = ["loss", "gain"].includes(state.order) ? "d" : "b";
  const turn = { loss: sign, gain: -sign, low: 1, high: -1 }[state.order];
  const values = new Map(found.map((row) => [row, valueOf(row, docs, side)]));
  const rank = (row) => values.get(row) === null ? Infinity : turn * values.get(row);
  return [...found].sort((one, other) => (rank(one) === rank(other) ? one.b - other.b : rank(one) < rank(other) ? -1 : 1));
}

export function showList(found, docs, onChoose) {
  rows = found;
  choose = onChoose;
  $("count").textContent = `${found.length} of ${docs.b.samples.length} samples`;
  $("spacer").style.height = `${found.length * HEIGHT}px`;
  draw(docs);
  $("list").onscroll = () => draw(docs);
}

function draw(docs) {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - SPARE);
  const last = Math.min(rows.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + SPARE);
  $("spacer").replaceChildren(...rows.slice(first, last).map((row, index) => item(row, first + index, docs)));
}

function item(row, index, docs) {
  const { sample } = row, [a, b] = ["a", "b"].map((side) => valueOf(row, docs, side)), errors = errorsOf(row, docs);
  const sign = direction(docs.b.outputs.find((one) => one.name === state.number));
  const gain = a === null || b === null ? 0 : sign * (b - a);
  const there = docs.b.arms[state.armB]?.picture[row.b];
  const element = make("button", { type: "button", className: "item", role: "option" },
    there ? make("img", { src: editUrl(docs.b.id, state.armB, sample), alt: "", loading: "lazy" }) : make("span", { className: "gone" }, "failed"),
    make("span", { className: "about" },
      make("span", { className: "line" }, make("strong", {}, sample.kind), ` ${sample.id}${sample.seed ? ` · seed ${sample.seed}` : ""}`),
      make("span", { className: "words" }, sample.instruction)),
    make("span", { className: `value ${errors.length ? "bad" : gain > 0 ? "good" : gain < 0 ? "bad" : ""}` }, errors.length ? `${errors.length} error${errors.length > 1 ? "s" : ""}` : `${shown(a)} → ${shown(b)}`));
  element.style.transform = `translateY(${index * HEIGHT}px)`;
  element.setAttribute("aria-selected", String(row.key === state.sample));
  element.addEventListener("click", () => choose(row.key));
  return element;
}

export function editUrl(run, arm, sample) {
  return `edit.png?${new URLSearchParams({ run, arm, benchmark: sample.benchmark, sample: sample.id, seed: sample.seed })}`;
}

/** Choose the sample before or after the chosen one, and scroll to it. */
export function step(by) {
  const now = rows.findIndex((row) => row.key === state.sample), next = rows[Math.min(rows.length - 1, Math.max(0, now + by))];
  if (!next) return;
  choose(next.key);
  reveal();
}

export function reveal() {
  const list = $("list"), place = rows.findIndex((row) => row.key === state.sample) * HEIGHT;
  if (place < 0) return;
  if (place < list.scrollTop) list.scrollTop = place;
  else if (place + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = place + HEIGHT - list.clientHeight;
}
