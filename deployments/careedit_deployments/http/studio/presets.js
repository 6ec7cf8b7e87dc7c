/* Presets: the instruction and the options under a name, kept in this browser. */

import { $, make, say } from "./common.js";
import { keepSoon } from "./source.js";
import { fields, fillIn } from "./state.js";

const KEY = "careedit-presets";

function read() {
  try { return JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { return {}; }
}

function write(presets, chosen = "") {
  localStorage.setItem(KEY, JSON.stringify(presets));
  draw(chosen);
}

function draw(chosen = "") {
  const names = Object.keys(read()).sort();
  $("preset").replaceChildren(make("option", { value: "" }, names.length ? "choose …" : "none saved"), ...names.map((name) => make("option", { value: name }, name)));
  $("preset").value = chosen;
  $("preset-delete").disabled = !chosen;
}

$("preset").addEventListener("change", () => {
  $("preset-delete").disabled = !$("preset").value;
  const preset = read()[$("preset").value];
  if (!preset) return;
  fillIn(preset);
  keepSoon();
  say(`The preset "${$("preset").value}" is filled in.`);
});
$("preset-save").addEventListener("click", () => {
  const name = $("preset-name").value.trim();
  if (!name) {
    $("preset-name").focus();
    return say("Give the preset a name.", true);
  }
  try { write({ ...read(), [name]: fields() }, name); } catch { return say("The browser does not keep presets. Allow storage for this page.", true); }
  $("preset-name").value = "";
  say(`The preset "${name}" is saved in this browser.`);
});
$("preset-delete").addEventListener("click", () => {
  const { [$("preset").value]: gone, ...rest } = read();
  if (gone) write(rest);
});
draw();
