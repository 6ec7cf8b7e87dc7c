/* Requests for edits. One edit at a time is a turn of a session, so that the server has the history too; several
images at once, and the sets of a blind comparison, are edits of their own. */

import { $, api, post } from "./common.js";
import { maskBlob } from "./mask.js";
import { desk, fields, keepNode } from "./state.js";

const FORM = { model: "model", expert: "expert", quality: "quality", n: "n", steps: "steps", seed: "seed", filter: "early_filter" };

export const SOURCE = "source"; // the name of a session's source

/** The turn that a session edits next, or null if the server does not have the session any more. */
export async function headOf(session) {
  try {
    return (await (await api(`v1/sessions/${session}`)).json()).head ?? SOURCE;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

export const undoTurn = (session) => post(`v1/sessions/${session}/undo`);

/** The anchor of a node and the head of its session; a node without them starts a session. */
async function anchorOf(node, signal) {
  const head = node.anchor ? await headOf(node.anchor.session) : null;
  if (head) return { ...node.anchor, head };
  const form = new FormData();
  form.append("image", node.blob, "source");
  const session = await (await api("v1/sessions", { method: "POST", body: form, signal })).json();
  node.anchor = { session: session.id, turn: SOURCE };
  await keepNode(node);
  return { ...node.anchor, head: SOURCE };
}

/** The form of an edit; `more` replaces fields of the page. Without `image`, a session has the source. */
export async function formOf({ image = null, more = {} } = {}) {
  const form = new FormData();
  if (image) form.append("image[]", image, "source");
  for (const reference of desk.references) form.append("image[]", reference, "reference");
  const mask = await maskBlob();
  if (mask) form.append("mask", mask, "mask.png");
  if (mask && $("refine").checked) form.append("refine_mask", "true");
  const given = fields();
  const sent = { prompt: given.prompt, ...Object.fromEntries(Object.entries(FORM).map(([id, field]) => [field, given[id]])), ...more };
  for (const [field, value] of Object.entries(sent)) if (value != null && value !== "") form.append(field, value);
  return form;
}

/** The events of a response of server-sent events, one by one. */
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (!data) continue;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

const streamed = () => ({ stream: "true", partial_images: $("partials").value || "0", candidate_images: "true" });

async function* stream(form, signal) {
  const answer = await api("v1/images/edits", { method: "POST", body: form, signal });
  for await (const event of eventsOf(answer)) {
    const url = `data:image/${event.output_format};base64,${event.b64_json}`, report = event.careedit ?? {};
    if (event.type === "image_edit.partial_image") yield { image: report.image ?? 0, preview: url };
    else if (event.type === "image_edit.candidate") yield { image: report.image ?? 0, index: event.candidate_index, candidate: url };
    else if (event.type === "image_edit.completed") yield { image: report.image ?? 0, url, report };
  }
}

/** Edit a node: yields {image, preview}, {image, index, candidate} and {image, url, report}. */
export async function* editOf(node, signal) {
  if (Number(fields().n) > 1) {
    yield* stream(await formOf({ image: node.blob, more: streamed() }), signal);
    return;
  }
  const { session, turn, head } = await anchorOf(node, signal);
  if (turn === head) {
    yield* stream(await formOf({ more: { n: "", session, ...streamed() } }), signal);
    return;
  }
  // A branch; the route that takes the turn to start from does not stream.
  const body = await formOf({ more: { n: "", turn } });
  const answer = await (await api(`v1/sessions/${session}/turns`, { method: "POST", body, signal })).json();
  yield { image: 0, url: `data:image/${answer.output_format};base64,${answer.data[0].b64_json}`, report: answer.careedit };
}

/** Edit a node with a model and a seed, in no session: the last event of its stream. */
export async function editWith(node, model, seed, signal) {
  let last = null;
  const more = { model, seed, n: "", stream: "true", partial_images: "0" };
  for await (const event of stream(await formOf({ image: node.blob, more }), signal)) last = event;
  if (!last) throw new Error("The edit ended without an image. Try again.");
  return last;
}
