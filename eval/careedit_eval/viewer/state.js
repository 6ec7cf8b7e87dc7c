/* What the page shows, and the URL's hash that holds it, so that every view has a link. */

const DEFAULTS = {
  tab: "samples", runA: "", armA: "", runB: "", armB: "", text: "", benchmark: "", kind: "", expert: "", error: "", number: "",
  side: "b", low: "", high: "", order: "", sample: "", mode: "side", left: "source", right: "b", gain: "4",
};
export const FILTERS = ["text", "benchmark", "kind", "expert", "error", "number", "side", "low", "high", "order"];
export const state = { ...DEFAULTS };

export function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
}

/** Change the state and the hash, as a new `entry` of the browser's history or in place of the last one. */
export function change(changes, entry = false) {
  Object.assign(state, changes);
  const kept = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  const url = `#${new URLSearchParams(kept)}`;
  if (entry) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

export const clearedFilters = () => Object.fromEntries(FILTERS.map((name) => [name, DEFAULTS[name]]));

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; text is never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const element = tag === "svg" || tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.replace("svg:", "")) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !(element instanceof SVGElement)) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** JSON of the server; an error has its sentence. */
export async function api(path, query = {}) {
  let answer;
  try { answer = await fetch(`${path}?${new URLSearchParams(query)}`); } catch { throw new Error("The viewer has ended; start it again."); }
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error);
  return data;
}

/** A number with enough digits: four that count. */
export function shown(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 1 : Math.min(7, Math.max(3, 3 - Math.floor(Math.log10(size)))));
}

export const signed = (value) => (value > 0 ? `+${shown(value)}` : shown(value));

/** 1 if a larger value of an output is better, -1 if a smaller one is, 0 if neither. */
export const direction = (output) => ({ higher: 1, lower: -1 })[output?.better] ?? 0;
