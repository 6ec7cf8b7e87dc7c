/* The results of an edit: previews, then comparison, candidates, marks, download. */

import { $, button, make, named, post, say } from "./common.js";
import { Comparison } from "./compare.js";
import { addressOf, drawHistory, goOn } from "./history.js";
import { blobFrom, isSigned } from "./pictures.js";
import { keepNode, newNode } from "./state.js";
import { candidates, explain, showTrace } from "./why.js";

export const SIGNED = "Content Credentials: the file is signed. Check it with careedit provenance show.";

/** One image in the making: its previews, then its comparison with the source. */
export class View {
  constructor(node, words) {
    Object.assign(this, { node, words, previews: 0, candidates: [] });
    this.picture = make("img", { className: "busy crisp", alt: "Preview", src: addressOf(node) });
    this.caption = make("figcaption", {}, "Waiting for the first preview …");
    this.stage = make("div", { className: "stage" }, this.picture);
    this.figure = make("figure", {}, this.stage, this.caption);
    $("results").append(this.figure);
  }

  preview(url) {
    this.picture.src = url;
    this.caption.textContent = `Preview ${++this.previews}`;
  }

  giveUp() {
    if (!this.done) this.figure.remove();
  }

  async finish(url, report) {
    this.done = true;
    const trace = report.traces[0], blob = blobFrom(url);
    const made = newNode(blob, {
      parent: this.node.id, words: this.words, report, trace,
      anchor: report.session ? { session: report.session, turn: report.turn } : null,
    });
    this.picture.className = $("source").width < 300 ? "crisp" : "";
    this.picture.src = url;
    this.picture.alt = `The result of: ${this.words}`;
    const comparison = new Comparison(this.stage, this.picture, addressOf(this.node));
    this.caption.textContent = `${this.words} – ${report.arm}, ${named(trace.routing.weights)}, seed ${trace.seed}, ${trace.steps} steps`;
    this.figure.append(comparison.controls, actionsOf(made, url), ...[candidates(trace.filter, this.candidates)].filter(Boolean));
    if (await isSigned(blob)) this.figure.append(make("p", { className: "soft signed" }, SIGNED));
    explain(trace.routing, "edited");
    showTrace(report, trace);
    try { await keepNode(made); } catch { say("The browser has no room to keep this result. Download it.", true); }
    drawHistory();
  }
}

function actionsOf(node, url) {
  const marks = [["Good", 5], ["Bad", 1]].map(([text, rating]) => button(text, () => rate(node.report.id, rating, marks), { className: "rate" }));
  const keep = make("a", { href: url, download: `${node.report.id}.png`, className: "button" }, "Download");
  return make("div", { className: "row" }, button("Go on from here", () => goOn(node), { className: "go-on" }), keep, ...marks);
}

/** Send a user's rating of an edit, which counts for its arm. */
async function rate(edit, rating, marks) {
  for (const mark of marks) mark.disabled = true;
  try {
    await post("v1/feedback", { edit, rating });
    say("Thank you. Your rating counts for the model that edited.");
  } catch (error) {
    say(error.message, true);
    for (const mark of marks) mark.disabled = false;
  }
}
