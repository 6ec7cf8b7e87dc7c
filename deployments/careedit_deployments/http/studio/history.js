/* The history: a tree of pictures. Every result can be edited again, which starts a branch. */

import { $, button, make, named, say } from "./common.js";
import { headOf, undoTurn } from "./requests.js";
import { setReferences, onShow, show } from "./source.js";
import { childrenOf, depthOf, desk, nodes } from "./state.js";
import { explain, showTrace } from "./why.js";

const pictures = new Map();

/** The address of a node's picture in this page. */
export function addressOf(node) {
  if (!pictures.has(node.id)) pictures.set(node.id, URL.createObjectURL(node.blob));
  return pictures.get(node.id);
}

/** Make a node the source of the next edit. */
export async function goOn(node) {
  setReferences([]);
  await show(node);
  $("prompt").select();
  $("prompt").focus();
  say(node.parent ? "The result is now the source; say what to change next." : "This is the source again; say what to change.");
}

function entryOf(node) {
  const words = node.parent ? `Turn ${depthOf(node)}: ${node.words} ` : "Source";
  const entry = make("div", { className: "turn" },
    make("img", { src: addressOf(node), alt: "", className: "crisp" }),
    make("span", { className: "words" }, words, node.trace ? make("span", { className: "soft" }, named(node.trace.routing.weights)) : ""));
  const actions = make("span", { className: "actions" });
  if (node.trace) actions.append(button("Why", () => { explain(node.trace.routing, "edited"); showTrace(node.report, node.trace); }, { "aria-label": `Why: ${words}` }));
  actions.append(button("Go on", () => goOn(node), { className: "again", "aria-label": `Go on from: ${words}` }));
  entry.append(actions);
  if (node === desk.current) entry.setAttribute("aria-current", "true");
  return entry;
}

/** A node and what was made from it: one list while there is one result, and one list per branch. */
function lineOf(node) {
  const item = make("li", {}, entryOf(node)), branches = childrenOf(node);
  if (branches.length === 1) return [item, ...lineOf(branches[0])];
  item.append(...branches.map((branch) => make("ol", {}, ...lineOf(branch))));
  return [item];
}

/** Show the tree; a source is in it once it was edited. */
export function drawHistory() {
  const roots = [...nodes.values()].filter((node) => !node.parent && childrenOf(node).length).sort((a, b) => b.created - a.created);
  $("history").hidden = !roots.length;
  $("turns").replaceChildren(...roots.flatMap(lineOf));
  $("undo").disabled = !desk.current?.parent;
}
onShow(drawHistory);

/** Go back to what the current picture was made from, here and in the server's session. The turn stays in the tree. */
export async function undo() {
  const node = desk.current, parent = nodes.get(node?.parent);
  if (!parent) return;
  try {
    if (node.anchor && (await headOf(node.anchor.session)) === node.anchor.turn) await undoTurn(node.anchor.session);
    await goOn(parent);
  } catch (error) { say(error.message, true); }
}
$("undo").addEventListener("click", undo);
