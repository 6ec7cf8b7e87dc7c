/* The viewer: reads runs from its server, and shows the view that the URL's hash names. */
import { $, FILTERS, api, change, clearedFilters, make, readHash, state } from "./state.js";
import { expertsOf, filtered, join, reveal, showList, step } from "./list.js";
import { showSample } from "./sample.js";
import { showHistory } from "./history.js";

const documents = new Map();
let library = null, docs = null, all = [], latest = 0;

function say(message, bad = true) {
  $("said").hidden = !message;
  $("said").textContent = message;
  $("said").className = bad ? "bad" : "dim";
}

function documentOf(run) {
  if (!documents.has(run)) documents.set(run, api("api/run", { run }).catch((error) => { documents.delete(run); throw error; }));
  return documents.get(run);
}

/** Fill what the hash leaves open: the last named run as B, and the first as A if two are named. */
async function complete() {
  const runB = state.runB || library.named.at(-1), runA = state.runA || (library.named.length > 1 ? library.named[0] : runB);
  const [a, b] = await Promise.all([documentOf(runA), documentOf(runB)]);
  const armB = state.armB in b.arms ? state.armB : b.pair[1];
  const armA = state.armA in a.arms ? state.armA : runA === runB ? a.pair[0] : armB in a.arms ? armB : a.pair[1];
  const number = b.outputs.some((one) => one.name === state.number) ? state.number : b.primary;
  docs = { a, b };
  all = join(a, b);
  change({ runA, runB, armA, armB, number });
}

function options(id, entries, value) {
  $(id).replaceChildren(...entries.map(([key, label]) => make("option", { value: key }, label)));
  $(id).value = value;
}
const unique = (values) => [...new Set(values)].filter(Boolean).sort().map((one) => [one, one]);

function fill() {
  for (const side of ["A", "B"]) {
    options(`run-${side.toLowerCase()}`, library.runs.map((run) => [run, run]), state[`run${side}`]);
    options(`arm-${side.toLowerCase()}`, Object.keys(docs[side.toLowerCase()].arms).map((arm) => [arm, arm]), state[`arm${side}`]);
  }
  $("title").textContent = docs.b.suite;
  document.title = `${docs.b.suite}: ${docs.b.id}`;
  options("benchmark", [["", "Every benchmark"], ...unique(Object.keys(docs.b.benchmarks))], state.benchmark);
  options("kind", [["", "Every kind"], ...unique(docs.b.samples.map((one) => one.kind))], state.kind);
  options("expert", [["", "Every expert"], ["≠", "A and B chose different experts"], ...unique(all.flatMap((row) => expertsOf(row, docs)))], state.expert);
  options("error", [["", "With or without errors"], ["any", "With an error"], ["none", "Without errors"], ...unique([...docs.a.errors, ...docs.b.errors])], state.error);
  options("number", docs.b.outputs.map((one) => [one.name, one.name]), state.number);
  for (const name of ["text", "side", "low", "high", "order"]) $(name).value = state[name];
  for (const tab of document.querySelectorAll("[data-tab]")) tab.setAttribute("aria-selected", String(tab.dataset.tab === state.tab));
}

/** What makes the two sides hard to compare, in words. */
function doubts() {
  if (docs.a === docs.b) return "";
  const found = Object.entries(docs.b.benchmarks).filter(([name, print]) => docs.a.benchmarks[name] && docs.a.benchmarks[name] !== print).map(([name]) => `${name} has other rows in the run of A`);
  const keys = new Map(docs.a.outputs.map((one) => [one.name, one.key]));
  found.push(...docs.b.outputs.filter((one) => keys.has(one.name) && keys.get(one.name) !== one.key).map((one) => `${one.name} is measured in another way in the run of A`));
  return found.length ? `Not the same on both sides: ${found.join("; ")}.` : "";
}

async function render() {
  const turn = ++latest;
  try {
    await complete();
    if (turn !== latest) return;
    say(doubts());
    fill();
    $("samples").hidden = state.tab !== "samples";
    $("history").hidden = state.tab !== "history";
    if (state.tab === "history") {
      const nights = await api("api/history");
      if (turn === latest) showHistory(nights, docs.b, (run) => { change({ tab: "samples", runB: run, armB: "" }, true); render(); });
      return;
    }
    const rows = filtered(all, docs);
    if (!rows.some((row) => row.key === state.sample)) change({ sample: rows[0]?.key ?? "" });
    showList(rows, docs, choose);
    reveal();
    await openSample(turn);
  } catch (error) {
    if (turn === latest) say(error.message);
  }
}

async function openSample(turn) {
  const row = all.find((one) => one.key === state.sample);
  if (!row) {
    $("sample").replaceChildren(make("p", { className: "dim" }, "No sample is left; clear a filter."));
    return;
  }
  const { benchmark, id, seed } = row.sample, query = { benchmark, sample: id, seed };
  const b = api("api/sample", { run: docs.b.id, ...query });
  const a = docs.a === docs.b ? b : row.a < 0 ? null : api("api/sample", { run: docs.a.id, ...query });
  const [before, after] = await Promise.all([a, b]);
  if (turn === latest) showSample(row, docs, before, after);
}

function choose(key) {
  change({ sample: key }, true);
  render();
}

for (const [id, name] of [["run-a", "runA"], ["arm-a", "armA"], ["run-b", "runB"], ["arm-b", "armB"]]) {
  $(id).addEventListener("change", () => { change({ [name]: $(id).value }); render(); });
}
for (const name of FILTERS) $(name).addEventListener("input", () => { change({ [name]: $(name).value }); $("list").scrollTop = 0; render(); });
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => { change({ ...clearedFilters(), number: state.number }); render(); });
for (const tab of document.querySelectorAll("[data-tab]")) tab.addEventListener("click", () => { change({ tab: tab.dataset.tab }, true); render(); });
addEventListener("popstate", () => { readHash(); render(); });
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  const by = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (!by || typing || event.ctrlKey || event.metaKey || event.altKey || state.tab !== "samples") return;
  event.preventDefault();
  step(by);
});

readHash();
api("api/runs").then((found) => { library = found; return render(); }).catch((error) => say(error.message));
