/* The mask: painted over the source where the image may change. */

import { $, make, say } from "./common.js";
import { blobOf } from "./pictures.js";

const COLOUR = "#d22", MAX_UNDO = 30;
const canvas = $("mask"), ink = canvas.getContext("2d", { willReadFrequently: true });
const at = { x: 0, y: 0 };
const past = [], future = [];
let tool = "brush", corner = null, changed = () => {};

export const onMaskChange = (act) => { changed = act; };
export const maskIsOpen = () => !canvas.hidden;

/** Make the mask empty and as large as a new source. */
export function resizeMask(width, height) {
  Object.assign(canvas, { width, height });
  canvas.classList.toggle("crisp", width < 300);
  past.length = future.length = 0;
  $("brush").max = Math.ceil(width / 4);
  $("brush").value = Math.ceil(width / 10);
}

export function openMask(on) {
  canvas.hidden = $("mask-tools").hidden = !on;
  $("mask-toggle").setAttribute("aria-pressed", String(on));
  changed();
}

const now = () => ink.getImageData(0, 0, canvas.width, canvas.height);

/** Remember the mask as it is, for undo. */
function remember() {
  past.push(now());
  if (past.length > MAX_UNDO) past.shift();
  future.length = 0;
}

function step(from, to) {
  if (!from.length) return;
  to.push(now());
  ink.putImageData(from.pop(), 0, 0);
  changed();
}
export const undoMask = () => step(past, future);
export const redoMask = () => step(future, past);

/** Change the mask as one step of undo. */
function alter(act) {
  remember();
  act();
  changed();
}

export const clearMask = () => alter(() => ink.clearRect(0, 0, canvas.width, canvas.height));

function paintWhere(inside) {
  const painted = now();
  const [red, green, blue] = [0xdd, 0x22, 0x22];
  for (let i = 0; i < painted.data.length; i += 4) painted.data.set([red, green, blue, inside(painted.data, i) ? 255 : 0], i);
  ink.putImageData(painted, 0, 0);
}
export const invertMask = () => alter(() => paintWhere((data, i) => data[i + 3] <= 127));

/** Take a picture as the mask: where it is transparent, or else where it is bright, the image may change. */
export async function maskFrom(file, words = "The mask is taken from the picture.") {
  let picture;
  try { picture = await createImageBitmap(file); } catch { return say("The browser cannot read this file as a mask. Choose a PNG, JPEG or WebP image.", true); }
  if (picture.width !== canvas.width || picture.height !== canvas.height) {
    return say(`The mask is ${picture.width}×${picture.height} and the image ${canvas.width}×${canvas.height}. Choose a mask of the image's size.`, true);
  }
  openMask(true);
  alter(() => {
    ink.clearRect(0, 0, canvas.width, canvas.height);
    ink.drawImage(picture, 0, 0);
    const { data } = now();
    let clear = false;
    for (let i = 3; i < data.length; i += 4) clear ||= data[i] < 128;
    paintWhere((pixels, i) => clear ? pixels[i + 3] < 128 : (pixels[i] + pixels[i + 1] + pixels[i + 2]) / 3 > 127);
  });
  say(words);
}

function dab() {
  ink.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
  ink.fillStyle = COLOUR;
  ink.beginPath();
  ink.arc(at.x, at.y, Number($("brush").value) / 2 + 0.5, 0, 7);
  ink.fill();
  ink.globalCompositeOperation = "source-over";
}

function move(event) {
  const box = canvas.getBoundingClientRect();
  const next = { x: (event.clientX - box.left) * canvas.width / box.width, y: (event.clientY - box.top) * canvas.height / box.height };
  const drawing = event.buttons & 1;
  if (event.type === "pointerdown") {
    remember();
    Object.assign(at, next);
    if (tool === "box") corner = next;
    else dab();
  } else if (drawing && tool === "box" && corner) {
    ink.putImageData(past.at(-1), 0, 0);
    ink.fillStyle = COLOUR;
    ink.fillRect(Math.round(Math.min(corner.x, next.x)), Math.round(Math.min(corner.y, next.y)), Math.round(Math.abs(next.x - corner.x)), Math.round(Math.abs(next.y - corner.y)));
  } else if (drawing) {
    const from = { ...at }, far = Math.max(1, Math.ceil(Math.hypot(next.x - at.x, next.y - at.y)));
    for (let i = 1; i <= far; i++) {
      Object.assign(at, { x: from.x + (next.x - from.x) * i / far, y: from.y + (next.y - from.y) * i / far });
      dab();
    }
  }
  Object.assign(at, next);
}

export function choose(wanted) {
  tool = wanted;
  for (const one of document.querySelectorAll("[data-tool]")) one.setAttribute("aria-pressed", String(one.dataset.tool === wanted));
}

export function resizeBrush(factor) {
  const size = Number($("brush").value);
  $("brush").value = factor > 1 ? Math.max(size + 1, size * factor) : Math.min(size - 1, size * factor);
  say(`The brush is ${$("brush").value} pixels wide.`);
}

function press(event) {
  const far = Math.max(1, Math.round(canvas.width / 32));
  const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
  if (moves[event.key]) {
    at.x = Math.min(canvas.width, Math.max(0, at.x + moves[event.key][0]));
    at.y = Math.min(canvas.height, Math.max(0, at.y + moves[event.key][1]));
    if (event.shiftKey) alter(dab);
    say(`At ${Math.round(at.x)}, ${Math.round(at.y)}.`);
  } else if (event.key === " ") alter(dab);
  else if (event.key === "Backspace") clearMask();
  else return;
  event.preventDefault();
}

/** The mask in the API's form: alpha 0 where the image may change. Null: nothing is painted. */
export async function maskBlob() {
  if (canvas.hidden) return null;
  const painted = now();
  let any = false;
  for (let i = 3; i < painted.data.length; i += 4) {
    const inside = painted.data[i] > 127;
    any ||= inside;
    painted.data.set([0, 0, 0, inside ? 0 : 255], i - 3);
  }
  if (!any) return null;
  const copy = make("canvas", { width: canvas.width, height: canvas.height });
  copy.getContext("2d").putImageData(painted, 0, 0);
  return blobOf(copy);
}

canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
canvas.addEventListener("pointermove", move);
canvas.addEventListener("pointerup", () => { corner = null; changed(); });
canvas.addEventListener("keydown", press);
for (const one of document.querySelectorAll("[data-tool]")) one.addEventListener("click", () => choose(one.dataset.tool));
$("mask-toggle").addEventListener("click", () => openMask(canvas.hidden));
$("mask-clear").addEventListener("click", clearMask);
$("mask-invert").addEventListener("click", invertMask);
$("mask-undo").addEventListener("click", undoMask);
$("mask-redo").addEventListener("click", redoMask);
$("mask-file").addEventListener("change", () => { if ($("mask-file").files[0]) maskFrom($("mask-file").files[0]); $("mask-file").value = ""; });
