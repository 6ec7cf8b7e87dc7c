/* The image that is edited, and its references: examples, upload, drag and drop, paste. */

import { $, button, make, say } from "./common.js";
import { onMaskChange, maskBlob, resizeMask } from "./mask.js";
import { blobFrom } from "./pictures.js";
import { childrenOf, desk, dropNode, keepDesk, keepNode, newNode } from "./state.js";

let most = 1, timer = null, shown = () => {};

export const onShow = (act) => { shown = act; };

/** Keep the desk soon; several changes in a row are kept once. The form says whether all is kept. */
export function keepSoon() {
  $("form").dataset.kept = "false";
  clearTimeout(timer);
  const mine = timer = setTimeout(async () => {
    try { await keepDesk(await maskBlob()); } catch { say("The browser has no room to keep your work, so a reload would lose it.", true); }
    if (mine === timer) $("form").dataset.kept = "true";
  }, 150);
}
onMaskChange(keepSoon);

/** Show a node as the image to edit, with an empty mask. */
export async function show(node) {
  const picture = await createImageBitmap(node.blob), canvas = $("source");
  Object.assign(canvas, { width: picture.width, height: picture.height });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  canvas.classList.toggle("crisp", picture.width < 300);
  resizeMask(picture.width, picture.height);
  const left = desk.current;
  desk.current = node;
  if (left && left !== node && !left.parent && !childrenOf(left).length) await dropNode(left);
  await keepNode(node);
  keepSoon();
  shown();
}

function press(chosen) {
  for (const one of document.querySelectorAll(".sample")) one.setAttribute("aria-pressed", String(one === chosen));
}

/** Take a file as the image to edit. */
export async function take(file) {
  if (!file) return;
  try {
    await show(newNode(file));
    press(null);
    say("");
  } catch { say("The browser cannot read this file as an image. Choose a PNG, JPEG or WebP image.", true); }
}

/** Set how many references the chosen model takes. */
export function setMostReferences(count) {
  most = count;
  showReferences();
}

export function setReferences(blobs) {
  desk.references = blobs;
  showReferences();
  keepSoon();
}

async function addReference(file) {
  if (!file) return;
  if (desk.references.length >= most) {
    return say(`This model takes ${most} reference${most === 1 ? "" : "s"}. Remove one before you add another.`, true);
  }
  try { (await createImageBitmap(file)).close(); } catch { return say("The browser cannot read this file as an image. Choose a PNG, JPEG or WebP image.", true); }
  setReferences([...desk.references, file]);
}

function showReferences() {
  for (const old of $("references").querySelectorAll("img")) URL.revokeObjectURL(old.src);
  $("references").hidden = !desk.references.length;
  $("references").replaceChildren(...desk.references.map((blob, i) => make("li", {},
    make("img", { src: URL.createObjectURL(blob), alt: "", className: "crisp" }),
    make("span", {}, `Reference ${i + 1}`, make("br"), make("span", { className: "soft" }, i < most ? "an image that the instruction may name" : "more than this model takes")),
    button("Remove", () => setReferences(desk.references.filter((_, other) => other !== i)), { "aria-label": `Remove reference ${i + 1}` }))));
}

/** Take an example: its image, its instruction, and its reference if it has one. */
export async function takeSample(sample) {
  press(sample);
  $("prompt").value = sample.dataset.instruction;
  setReferences(sample.dataset.reference ? [blobFrom(sample.dataset.reference)] : []);
  await show(newNode(blobFrom(sample.firstElementChild.src)));
}
for (const sample of document.querySelectorAll(".sample")) sample.addEventListener("click", () => takeSample(sample));

function takeFrom(id, act) {
  $(id).addEventListener("change", async () => {
    const files = [...$(id).files];
    $(id).value = ""; // so that the same file can be chosen again
    for (const file of files) await act(file);
  });
}
takeFrom("file", take);
takeFrom("reference", addReference);

function dropOn(id, act) {
  $(id).addEventListener("dragover", (event) => { event.preventDefault(); $(id).classList.add("drop"); });
  $(id).addEventListener("dragleave", () => $(id).classList.remove("drop"));
  $(id).addEventListener("drop", async (event) => {
    event.preventDefault();
    $(id).classList.remove("drop");
    for (const file of [...event.dataTransfer.files]) await act(file);
  });
}
dropOn("stage", take);
dropOn("reference-zone", addReference);

document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  take(file);
});
