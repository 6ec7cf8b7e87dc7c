/* One sample: its images, numbers with the judge's answers, routing, and traces of both sets. */
import { $, direction, make, shown, signed, state } from "./state.js";
import { editUrl } from "./list.js";
import { stage } from "./stage.js";

/** Show a sample. `a` and `b` are what the server knows of it in the runs of A and B; `a` is null if A's run lacks it. */
export function showSample(row, docs, a, b) {
  const { sample } = row, before = a?.arms[state.armA], after = b.arms[state.armB];
  const about = [sample.kind, sample.id, `seed ${sample.seed}`, sample.benchmark];
  if (b.turn > 1) about.push(`turn ${b.turn} after ${b.previous}`);
  $("sample").replaceChildren(
    make("h2", {}, sample.instruction || "(no instruction)"),
    make("p", { className: "dim" }, about.join(" · ")),
    ...[...new Set([...b.warnings, b.trouble].filter(Boolean))].map((text) => make("p", { className: "bad" }, text)),
    ...failures("A", state.armA, before, a === null), ...failures("B", state.armB, after, false),
    stage(pictures(sample, docs, before, after, b)),
    make("div", { className: "columns" },
      make("div", {}, make("h3", {}, "Numbers and the judge's answers"), numbers(docs, before, after), ...answers("A", before), ...answers("B", after)),
      make("div", {}, make("h3", {}, "Routing"), routing("A", state.armA, before), routing("B", state.armB, after))),
    details("Sample", { ...b.texts, ...b.extras, group: sample.group, mask_given: b.mask_given }),
    traceOf("A", state.armA, before), traceOf("B", state.armB, after));
}

function failures(side, arm, edit, absent) {
  if (absent) return [make("p", { className: "bad" }, `${side}: the run ${state.runA} does not have this sample.`)];
  if (!edit) return [make("p", { className: "bad" }, `${side}: ${arm} did not edit this sample.`)];
  return [edit.error && make("p", { className: "bad" }, `${side} failed: ${edit.error}`), edit.notes && make("p", { className: "dim" }, `${side}: ${edit.notes}`)].filter(Boolean);
}

function pictures(sample, docs, before, after, b) {
  const of = (role, label) => ({ name: role, label, url: `picture.png?${new URLSearchParams({ run: docs.b.id, benchmark: sample.benchmark, sample: sample.id, role })}` });
  const edit = (name, doc, arm, made) => ({ name, label: `${name.toUpperCase()}: ${arm}`, url: made && !made.error ? editUrl(doc.id, arm, sample) : "", missing: `${name.toUpperCase()} failed` });
  const labels = { source: "Source", target: "Truth", mask: "Mask" };
  const roles = b.pictures.filter((role) => !["source", "target"].includes(role));
  return [
    ...(b.pictures.includes("source") ? [of("source", labels.source)] : []),
    ...(before ? [edit("a", docs.a, state.armA, before)] : []),
    edit("b", docs.b, state.armB, after),
    ...(b.pictures.includes("target") ? [of("target", labels.target)] : []),
    ...roles.map((role) => of(role, labels[role] ?? role.replace("reference-", "Reference "))),
  ];
}

function numbers(docs, before, after) {
  const outputs = new Map(docs.b.outputs.map((one) => [one.name, one]));
  const find = (edit, output, rival) => edit?.scores.find((one) => one.output === output && one.rival === rival);
  const names = [];
  for (const one of [...(after?.scores ?? []), ...(before?.scores ?? [])]) {
    if (!names.some(([output, rival]) => output === one.output && rival === one.rival)) names.push([one.output, one.rival]);
  }
  const rows = names.map(([name, rival]) => {
    const output = outputs.get(name), [a, b] = [find(before, name, rival), find(after, name, rival)];
    const both = a?.value != null && b?.value != null, gain = both && !output?.information ? direction(output) * (b.value - a.value) : 0;
    const remarks = [["A", a], ["B", b]].flatMap(([side, one]) => [one?.error && `${side}: ${one.error}`, one?.notes && `${side}: ${one.notes}`].filter(Boolean));
    return make("tr", {},
      make("td", { title: output ? `${output.metric}, ${output.protocol}` : "pairwise" }, `${name}${{ higher: " ↑", lower: " ↓" }[output?.better] ?? ""}${rival ? ` against ${rival}` : ""}`),
      make("td", { className: "n" }, shown(a?.value)), make("td", { className: "n" }, shown(b?.value)),
      make("td", { className: `n ${gain > 0 ? "good" : gain < 0 ? "bad" : ""}` }, both ? signed(b.value - a.value) : "–"),
      make("td", { className: "remark" }, ...remarks.flatMap((text, index) => (index ? [make("br"), text] : [text]))));
  });
  return make("table", {}, make("tr", {}, ...["number", "A", "B", "B − A", "answer, error or note"].map((text, index) => make("th", { className: index > 0 && index < 4 ? "n" : "" }, text))), ...rows);
}

/** What every judge said about an edit, question by question; a long reply is shown whole. */
function answers(side, edit) {
  return (edit?.answers ?? []).map(({ metric, judge, rival, answers: given }) => {
    const rows = given.map(({ about, asked, reply, error }) => make("tr", {},
      make("td", { title: asked }, about), make("td", { className: error ? "remark bad" : "remark reply" }, error ?? reply)));
    const title = `${side}: ${metric}${rival ? ` against ${rival}` : ""}, answers of ${judge} (${given.length})`;
    return make("details", { className: "answers" }, make("summary", {}, title), make("table", {}, ...rows));
  });
}

function routing(side, arm, edit) {
  const decision = edit?.trace?.routing;
  if (!decision) return make("p", { className: "dim" }, `${side}, ${arm}: ${edit?.trace_missing ?? "no trace, so nothing is known of its routing."}`);
  const shares = Object.keys(decision.probabilities ?? {}).length ? decision.probabilities : decision.weights;
  const bars = Object.entries(shares).sort((one, other) => other[1] - one[1]).flatMap(([name, share]) => {
    const meter = make("meter", { min: 0, max: 1, value: share });
    const weight = decision.weights[name];
    return [make("span", { className: weight ? "chosen" : "" }, weight && weight < 0.995 ? `${name} (weight ${weight.toFixed(2)})` : name), meter, make("span", { className: "n" }, share.toFixed(3))];
  });
  return make("div", { className: "route" }, make("p", {}, make("strong", {}, `${side}: ${edit.experts || arm}`), ` ${decision.reason}`), make("div", { className: "bars" }, ...bars));
}

function traceOf(side, arm, edit) {
  const facts = edit ? `${edit.nfe ?? "?"} evaluations, ${edit.seconds == null ? "?" : edit.seconds.toFixed(2)} s` : "";
  if (!edit?.trace) return make("p", { className: "dim" }, `${side}, ${arm}: no trace. ${facts}`);
  return make("details", {}, make("summary", {}, `Trace of ${side}, ${arm}: ${facts}`), make("pre", {}, JSON.stringify(edit.trace, null, 1)));
}

function details(title, facts) {
  const known = Object.entries(facts).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return make("details", {}, make("summary", {}, title), make("table", {}, ...known.map(([name, value]) => make("tr", {}, make("td", {}, name), make("td", { className: "remark" }, String(value))))));
}
