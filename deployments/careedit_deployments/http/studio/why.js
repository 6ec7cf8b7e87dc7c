/* Who edited and why: the routing decision, the trace, and the candidates of an early filter. */

import { $, button, make, named, percent } from "./common.js";

export function explain(routing, verb) {
  $("routing").hidden = false;
  $("routing").querySelector("h2").textContent = verb === "edited" ? "Who edited, and why" : "Who would edit, and why";
  $("reason").textContent = `${named(routing.weights)}: ${routing.reason}`;
  const odds = Object.entries(routing.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  $("bars").replaceChildren(...odds.flatMap(([name, share]) => {
    const fill = make("i");
    fill.style.width = percent(share, 1).replace(" ", "");
    return [make("span", {}, name), make("div", { className: name in routing.weights ? "bar chosen" : "bar" }, fill), make("span", { className: "n" }, percent(share))];
  }));
  $("doubt").textContent = `Router: ${routing.router}. The instruction applies to the image with probability ${percent(routing.feasible)}; entropy ${routing.entropy.toFixed(2)} nats.`;
}

export function showTrace(report, trace) {
  const rows = {
    edit: report.id, model: report.arm, "expert set": `${trace.expert_set} (${trace.expert_set_sha256.slice(0, 12)})`, seed: trace.seed,
    steps: trace.steps, evaluations: trace.nfe, seconds: Object.entries(trace.seconds).map(([stage, s]) => `${stage} ${s.toFixed(3)}`).join(", "),
    computed: `${trace.device}, ${trace.dtype}, ${trace.application}`, "not as asked": (trace.degradations ?? []).join("; ") || "nothing",
  };
  if (report.notes?.length) rows.notes = report.notes.join(" ");
  $("trace").replaceChildren(...Object.entries(rows).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { className: "wide" }, String(value)))));
  $("trace-box").hidden = false;
}

/** The candidates that an early filter tried, as a strip of their last previews (addresses in `pictures`, where there are any)
with the judge's marks; null without a filter. */
export function candidates(filter, pictures = []) {
  if (!filter) return null;
  const seen = filter.candidates.map((one, i) => {
    const mark = one.score == null ? one.error ?? "not judged" : `judge ${one.score.toFixed(2)}`;
    const again = button("Use this seed", () => {
      $("seed").value = one.seed;
      $("filter").value = "";
      $("seed").dispatchEvent(new Event("input", { bubbles: true }));
      $("options").open = true;
      $("edit").focus();
    }, { "aria-label": `Use the seed of candidate ${i + 1}` });
    const picture = pictures[i] ? [make("img", { className: "crisp", src: pictures[i], alt: `Candidate ${i + 1} after ${one.steps} steps` })] : [];
    return make("li", { className: i === filter.chosen ? "chosen" : "" }, ...picture,
      make("strong", {}, `Candidate ${i + 1}${i === filter.chosen ? " – finished" : ""}`), make("span", {}, mark),
      make("span", { className: "soft" }, `seed ${one.seed}, ${one.steps} steps`), again);
  });
  const judged = filter.degraded ? `The judge could not choose: ${filter.degraded}.` : `${filter.strategy}, ${filter.nfe} evaluations before the choice.`;
  return make("div", { className: "filter" }, make("h3", {}, "Early filter"), make("ul", { className: "candidates", "aria-label": "Candidates of the early filter" }, ...seen), make("p", { className: "soft" }, judged));
}
