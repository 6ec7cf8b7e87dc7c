/* The studio: puts its parts together, restores the last visit, and reads the keyboard. */

import { $, api, make, say } from "./common.js";
import { offer } from "./blind.js";
import { ask, edit, stop } from "./edit.js";
import { drawHistory, undo } from "./history.js";
import { choose, maskFrom, maskIsOpen, openMask, redoMask, resizeBrush, undoMask } from "./mask.js";
import "./presets.js";
import { keepSoon, setMostReferences, setReferences, show, takeSample } from "./source.js";
import { fillIn, forgetAll, nodes, restore } from "./state.js";

let models = [];

async function lists() {
  const [served, experts] = await Promise.all(["v1/models", "v1/experts"].map(async (path) => (await api(path)).json()));
  models = served.data;
  $("model").append(...models.map((model) => make("option", { value: model.id }, model.id === model.expert_set ? model.id : `${model.id} (${model.expert_set})`)));
  const names = [...new Set(experts.data.map((expert) => expert.name))];
  $("expert").append(...names.map((name) => make("option", { value: name }, name)));
  offer(models);
}

/** The chosen model decides how many references there can be; by traffic, it is what every model takes. */
function countReferences() {
  const chosen = models.filter((model) => !$("model").value || model.id === $("model").value);
  setMostReferences(Math.min(...chosen.map((model) => model.references), 15));
}

async function start() {
  let kept = null, failed = null;
  try { kept = await restore(); } catch { say("This browser does not keep your work when the page is reloaded.", true); }
  const node = nodes.get(kept?.current);
  if (node) {
    await show(node);
    setReferences(kept.references);
    fillIn(kept.fields);
    if (kept.mask) await maskFrom(kept.mask, "");
  } else {
    const first = document.querySelector(".sample");
    if (first) await takeSample(first);
  }
  drawHistory();
  try { await lists(); } catch (error) { failed = error; }
  if (kept) fillIn(kept.fields); // models and experts are known now
  countReferences();
  if (failed) say(failed.message, true);
}

const KEYS = {
  b: () => { openMask(true); choose("brush"); },
  e: () => { openMask(true); choose("eraser"); },
  x: () => { openMask(true); choose("box"); },
  m: () => openMask(!maskIsOpen()),
  "[": () => resizeBrush(0.8),
  "]": () => resizeBrush(1.25),
  u: undo,
  i: () => $("prompt").focus(),
  s: () => document.querySelector("#results [data-mode=slider]")?.click(),
  k: () => document.querySelector("#results [data-mode=blink]")?.click(),
  d: () => document.querySelector("#results [data-mode=difference]")?.click(),
};

document.addEventListener("keydown", (event) => {
  const command = event.ctrlKey || event.metaKey;
  if (event.key === "Escape") return stop();
  if (event.key === "Enter" && command) return $("form").requestSubmit();
  if (event.target.matches("input:not([type=range]):not([type=checkbox]), textarea, select")) return;
  if (command && event.key.toLowerCase() === "z" && maskIsOpen()) {
    event.preventDefault();
    return event.shiftKey ? redoMask() : undoMask();
  }
  const act = command || event.altKey || !$("single-keys").checked ? null : KEYS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

// People who speak to their computer, or whose hand trembles, press letters by mistake.
$("single-keys").checked = localStorage.getItem("careedit-single-keys") !== "off";
$("single-keys").addEventListener("change", () => localStorage.setItem("careedit-single-keys", $("single-keys").checked ? "on" : "off"));
$("form").addEventListener("submit", (event) => { event.preventDefault(); edit(); });
$("form").addEventListener("input", keepSoon);
$("stop").addEventListener("click", stop);
$("explain").addEventListener("click", ask);
$("model").addEventListener("change", countReferences);
$("forget").addEventListener("click", async () => {
  if (!confirm("Forget the pictures, masks and history that this browser keeps? The server keeps its sessions until they expire.")) return;
  await forgetAll();
  location.reload();
});
start();
