/* Edits as the visitor asks for them: start, stop, and what is said about them. */

import { $, api, say } from "./common.js";
import { editOf, formOf } from "./requests.js";
import { View } from "./results.js";
import { desk } from "./state.js";
import { explain } from "./why.js";

let running = null;

export const stop = () => running?.abort();

function busy(on) {
  for (const id of ["edit", "explain", "blind"]) $(id).disabled = on;
  $("stop").hidden = !on;
  $("results").setAttribute("aria-busy", String(on));
}

/** Do one thing at a time, which can be stopped; an error is shown in words. Returns whether it ended well. */
export async function during(words, work) {
  if (running || !$("form").reportValidity()) return false;
  running = new AbortController();
  busy(true);
  say(words);
  try {
    await work(running.signal);
    return true;
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, true);
    return false;
  } finally {
    busy(false);
    running = null;
  }
}

export async function edit() {
  const node = desk.current, words = $("prompt").value, began = performance.now(), views = new Map();
  const viewOf = (image) => {
    if (!views.has(image)) views.set(image, new View(node, words));
    return views.get(image);
  };
  const ended = await during("Editing …", async (signal) => {
    $("results").replaceChildren();
    let made = 0;
    for await (const event of editOf(node, signal)) {
      if (event.preview) viewOf(event.image).preview(event.preview);
      else if (event.candidate) viewOf(event.image).candidates[event.index] = event.candidate;
      else {
        made += 1;
        await viewOf(event.image).finish(event.url, event.report);
      }
    }
    say(`${made === 1 ? "1 image" : `${made} images`} in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  });
  if (!ended) for (const view of views.values()) view.giveUp();
}

/** Ask who would edit, without an edit. */
export const ask = () => during("Asking the router …", async (signal) => {
  const body = await formOf({ image: desk.current.blob });
  const report = await (await api("v1/routes", { method: "POST", body, signal })).json();
  explain(report.routing, "would");
  say(`${report.model} would edit, in ${report.evaluations} evaluations at most.`);
});
