/* A blind comparison: two models make the same edit, in random order; the names are shown after the vote. */

import { $, button, make, post, say } from "./common.js";
import { during } from "./edit.js";
import { drawHistory } from "./history.js";
import { blobFrom } from "./pictures.js";
import { editWith } from "./requests.js";
import { desk, keepNode, newNode } from "./state.js";
import { explain, showTrace } from "./why.js";

const SIDES = ["A", "B"], MAX_SEED = 2 ** 31;

/** Random bits of the browser; the order must not be guessed. */
const random = (below) => crypto.getRandomValues(new Uint32Array(1))[0] % below;

/** Offer the comparison if the server has two models. */
export function offer(models) {
  $("blind-box").hidden = models.length < 2;
  for (const id of ["blind-one", "blind-other"]) $(id).replaceChildren(...models.map((model) => make("option", { value: model.id }, model.id)));
  if (models.length > 1) $("blind-other").value = models[1].id;
}

function voteOf(node, words, events) {
  const figures = events.map((event, i) => make("figure", {},
    make("div", { className: "stage" }, make("img", { src: event.url, alt: `Result ${SIDES[i]}`, className: $("source").width < 300 ? "crisp" : "" })),
    make("figcaption", {}, `Result ${SIDES[i]}`)));
  const votes = [["A is better", 0], ["B is better", 1], ["Tie", null]].map(([text, winner]) => button(text, () => vote(winner), { className: "vote" }));
  const vote = async (winner) => {
    for (const one of votes) one.disabled = true;
    try {
      await post("v1/feedback", { edits: events.map((event) => event.report.id), winner: winner === null ? "tie" : events[winner].report.id });
    } catch (error) {
      say(error.message, true);
      for (const one of votes) one.disabled = false;
      return;
    }
    for (const [i, event] of events.entries()) {
      const { report } = event, trace = report.traces[0];
      figures[i].querySelector("figcaption").textContent = `Result ${SIDES[i]}: ${report.arm}`;
      await keepNode(newNode(blobFrom(event.url), { parent: node.id, words, report, trace, anchor: null }));
      explain(trace.routing, "edited");
      showTrace(report, trace);
    }
    drawHistory();
    say(`Thank you. A was ${events[0].report.arm}, B was ${events[1].report.arm}.`);
  };
  return [make("div", { className: "blind" }, ...figures), make("div", { className: "row", role: "group", "aria-label": "Which result is better?" }, ...votes)];
}

async function compare() {
  const models = [$("blind-one").value, $("blind-other").value];
  if (models[0] === models[1]) return say("Choose two different models to compare.", true);
  if (random(2)) models.reverse();
  const node = desk.current, words = $("prompt").value, seed = $("seed").value || String(random(MAX_SEED));
  await during("Two models edit …", async (signal) => {
    const events = await Promise.all(models.map((model) => editWith(node, model, seed, signal)));
    $("results").replaceChildren(...voteOf(node, words, events));
    $("routing").hidden = $("trace-box").hidden = true; // they would name the models
    say("Which one is better? The names are shown after your vote.");
  });
}
$("blind").addEventListener("click", compare);
