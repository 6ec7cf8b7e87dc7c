const source = $("source"), mask = $("mask"), ink = mask.getContext("2d");
let reference = null, running = null, turn = 0;
const turns = [];

/* The image, and the mask over it. */

async function setSource(blob, depth = 0) {
  const picture = await createImageBitmap(blob);
  for (const canvas of [source, mask]) Object.assign(canvas, { width: picture.width, height: picture.height });
  source.getContext("2d").drawImage(picture, 0, 0);
  source.classList.toggle("crisp", picture.width < 300);
  mask.classList.toggle("crisp", picture.width < 300);
  $("brush").max = Math.ceil(picture.width / 4);
  $("brush").value = Math.ceil(picture.width / 10);
  turn = depth;
}

const blobOf = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
const blobFrom = async (url) => new Blob([Uint8Array.from(atob(url.split(",")[1]), (c) => c.charCodeAt(0))], { type: "image/png" });

function setReference(blob) {
  reference = blob;
  $("reference-shown").hidden = !blob;
  URL.revokeObjectURL($("reference-picture").src);
  if (blob) $("reference-picture").src = URL.createObjectURL(blob);
}

for (const button of document.querySelectorAll(".sample")) {
  button.addEventListener("click", async () => {
    press(button);
    $("prompt").value = button.dataset.instruction;
    setReference(button.dataset.reference ? await blobFrom(button.dataset.reference) : null);
    await setSource(await blobFrom(button.firstElementChild.src));
  });
}

function press(chosen) {
  for (const button of document.querySelectorAll(".sample")) button.setAttribute("aria-pressed", String(button === chosen));
}

async function take(file) {
  if (!file) return;
  try {
    await setSource(file);
    press(null);
    say("");
  } catch { say("The browser cannot read this file as an image.", true); }
}

$("file").addEventListener("change", () => take($("file").files[0]));
$("reference").addEventListener("change", () => setReference($("reference").files[0] ?? null));
$("reference-drop").addEventListener("click", () => { $("reference").value = ""; setReference(null); });
$("stage").addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("drop"); });
$("stage").addEventListener("dragleave", () => $("stage").classList.remove("drop"));
$("stage").addEventListener("drop", (event) => { event.preventDefault(); $("stage").classList.remove("drop"); take(event.dataTransfer.files[0]); });

$("mask-toggle").addEventListener("click", () => {
  const on = mask.hidden;
  mask.hidden = $("mask-tools").hidden = !on;
  $("mask-toggle").setAttribute("aria-pressed", String(on));
  if (!on) clearMask();
});
const clearMask = () => ink.clearRect(0, 0, mask.width, mask.height);
$("mask-clear").addEventListener("click", clearMask);

const at = { x: 0, y: 0 };
function paint() {
  ink.fillStyle = "#d22";
  ink.beginPath();
  ink.arc(at.x, at.y, Number($("brush").value) / 2 + 0.5, 0, 7);
  ink.fill();
}
function move(event) {
  const box = mask.getBoundingClientRect();
  const next = { x: (event.clientX - box.left) * mask.width / box.width, y: (event.clientY - box.top) * mask.height / box.height };
  if (event.buttons & 1) {
    const far = event.type === "pointermove" ? Math.ceil(Math.hypot(next.x - at.x, next.y - at.y)) : 1;
    const from = { ...at };
    for (let i = 1; i <= far; i++) {
      at.x = from.x + (next.x - from.x) * i / far;
      at.y = from.y + (next.y - from.y) * i / far;
      paint();
    }
  }
  Object.assign(at, next);
  if (event.type === "pointerdown") paint();
}
mask.addEventListener("pointerdown", (event) => { mask.setPointerCapture(event.pointerId); move(event); });
mask.addEventListener("pointermove", move);
mask.addEventListener("keydown", (event) => {
  const step = Math.max(1, Math.round(mask.width / 32));
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (moves[event.key]) {
    at.x = Math.min(mask.width, Math.max(0, at.x + moves[event.key][0]));
    at.y = Math.min(mask.height, Math.max(0, at.y + moves[event.key][1]));
    if (event.shiftKey) paint();
    say(`At ${Math.round(at.x)}, ${Math.round(at.y)}.`);
  } else if (event.key === " ") paint();
  else if (event.key === "Backspace") clearMask();
  else return;
  event.preventDefault();
});

/** The mask in the API's form: alpha 0 where the image may change. Null: nothing was painted. */
async function maskBlob() {
  if (mask.hidden) return null;
  const painted = ink.getImageData(0, 0, mask.width, mask.height);
  let any = false;
  for (let i = 3; i < painted.data.length; i += 4) {
    const inside = painted.data[i] > 127;
    any ||= inside;
    painted.data.set([0, 0, 0, inside ? 0 : 255], i - 3);
  }
  if (!any) return null;
  const canvas = make("canvas", { width: mask.width, height: mask.height });
  canvas.getContext("2d").putImageData(painted, 0, 0);
  return blobOf(canvas);
}

/* Requests. */

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "";
}

async function bodyOf(stream) {
  const form = new FormData();
  form.append("image[]", await blobOf(source), "source.png");
  if (reference) form.append("image[]", reference, "reference");
  const drawn = await maskBlob();
  if (drawn) form.append("mask", drawn, "mask.png");
  if (drawn && $("refine").checked) form.append("refine_mask", "true");
  form.append("prompt", $("prompt").value);
  const fields = { model: "model", expert: "expert", quality: "quality", n: "n", steps: "steps", seed: "seed", early_filter: "filter" };
  for (const [field, id] of Object.entries(fields)) if ($(id)?.value) form.append(field, $(id).value);
  if (stream) {
    form.append("stream", "true");
    form.append("partial_images", $("partials").value || "0");
  }
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
      if (data) yield JSON.parse(data);
    }
  }
}

function busy(on) {
  $("edit").disabled = $("explain").disabled = on;
  $("stop").hidden = !on;
  $("results").setAttribute("aria-busy", String(on));
}

async function edit() {
  running = new AbortController();
  busy(true);
  say("Editing …");
  $("results").replaceChildren();
  const before = source.toDataURL("image/png"), words = $("prompt").value, depth = turn, began = performance.now();
  const views = new Map();
  const viewOf = (image) => {
    if (!views.has(image)) views.set(image, new View(before, words, depth));
    return views.get(image);
  };
  try {
    const answer = await api("v1/images/edits", { method: "POST", body: await bodyOf(true), signal: running.signal });
    let made = 0;
    for await (const event of eventsOf(answer)) {
      if (event.error) throw new Error(event.error.message);
      const view = viewOf(event.careedit?.image ?? 0), url = `data:image/${event.output_format};base64,${event.b64_json}`;
      if (event.type === "image_edit.partial_image") view.preview(url);
      else if (event.type === "image_edit.completed") {
        made += 1;
        view.finish(url, event.careedit);
      }
    }
    say(`${made === 1 ? "1 image" : `${made} images`} in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, true);
    for (const view of views.values()) view.giveUp();
  } finally {
    busy(false);
    running = null;
  }
}

/** One image in the making: its previews, then a comparison of before and after. */
class View {
  constructor(before, words, depth) {
    Object.assign(this, { before, words, depth });
    this.picture = make("img", { className: "busy crisp", alt: "Preview", src: before });
    this.caption = make("figcaption", {}, "Waiting for the first preview …");
    this.stage = make("div", { className: "stage" }, this.picture);
    this.figure = make("figure", {}, this.stage, this.caption);
    this.previews = 0;
    $("results").append(this.figure);
  }

  preview(url) {
    this.picture.src = url;
    this.caption.textContent = `Preview ${++this.previews}`;
  }

  giveUp() {
    if (!this.done) this.figure.remove();
  }

  finish(url, report) {
    this.done = true;
    const trace = report.traces[0];
    this.picture.className = source.width < 300 ? "crisp" : "";
    this.picture.src = url;
    this.picture.alt = `The result of: ${this.words}`;
    const over = make("img", { src: this.before, alt: "", className: `over ${this.picture.className}` });
    over.style.clipPath = "inset(0 100% 0 0)";
    this.stage.append(over);
    const slide = make("input", { type: "range", min: 0, max: 100, value: 0, "aria-label": "Show the source" });
    slide.addEventListener("input", () => { over.style.clipPath = `inset(0 ${100 - slide.value}% 0 0)`; });
    const on = make("button", { type: "button", className: "go-on" }, "Go on from here");
    on.addEventListener("click", () => goOn(url, this.depth + 1));
    const marks = [["Good", 5], ["Bad", 1]].map(([text, rating]) => {
      const mark = make("button", { type: "button", className: "rate" }, text);
      mark.addEventListener("click", () => rate(report.id, rating, marks));
      return mark;
    });
    const keep = make("a", { href: url, download: `${report.id}.png`, className: "button" }, "Download");
    this.figure.append(make("div", { className: "row" }, make("span", { className: "soft" }, "before"), slide, on, keep, ...marks));
    this.caption.textContent = `${this.words} – ${report.arm}, ${named(trace.routing.weights)}, seed ${trace.seed}, ${trace.steps} steps`;
    explain(trace.routing, "edited");
    showTrace(report, trace);
    remember({ before: this.before, url, words: this.words, depth: this.depth, report, trace });
  }
}

/** Send a user's rating of an edit, which counts for its arm. */
async function rate(edit, rating, marks) {
  for (const mark of marks) mark.disabled = true;
  try {
    await api("v1/feedback", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ edit, rating }) });
    say("Thank you. Your rating counts for the model that edited.");
  } catch (error) {
    say(error.message, true);
    for (const mark of marks) mark.disabled = false;
  }
}

async function goOn(url, depth) {
  press(null);
  setReference(null);
  clearMask();
  await setSource(await blobFrom(url), depth);
  $("prompt").select();
  $("prompt").focus();
  say("The result is now the source; say what to change next.");
}

function remember(done) {
  turns.push(done);
  const show = make("button", { type: "button" }, "Go on");
  show.addEventListener("click", () => goOn(done.url, done.depth + 1));
  const why = make("button", { type: "button" }, "Why");
  why.addEventListener("click", () => { explain(done.trace.routing, "edited"); showTrace(done.report, done.trace); });
  $("history").hidden = false;
  $("turns").append(make("li", {},
    make("img", { src: done.before, alt: "before", className: "crisp" }), make("span", { "aria-hidden": "true" }, "→"),
    make("img", { src: done.url, alt: "after", className: "crisp" }),
    make("span", { className: "words" }, `Turn ${done.depth + 1}: ${done.words} `, make("span", { className: "soft" }, named(done.trace.routing.weights))),
    why, show));
}

/* Why. */

function explain(routing, verb) {
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

function showTrace(report, trace) {
  const rows = {
    edit: report.id, model: report.arm, "expert set": `${trace.expert_set} (${trace.expert_set_sha256.slice(0, 12)})`, seed: trace.seed,
    steps: trace.steps, evaluations: trace.nfe, seconds: Object.entries(trace.seconds).map(([stage, s]) => `${stage} ${s.toFixed(3)}`).join(", "),
    computed: `${trace.device}, ${trace.dtype}, ${trace.application}`, "not as asked": (trace.degradations ?? []).join("; ") || "nothing",
  };
  if (trace.filter) rows["early filter"] = `${trace.filter.strategy}: ${trace.filter.candidates.length} candidates, number ${trace.filter.chosen + 1} was finished`;
  $("trace").replaceChildren(...Object.entries(rows).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { className: "wide" }, String(value)))));
  $("trace-box").hidden = false;
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); if (!running) edit(); });
$("stop").addEventListener("click", () => running?.abort());
$("prompt").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit(); });
$("explain").addEventListener("click", async () => {
  if (!$("form").reportValidity()) return;
  busy(true);
  $("stop").hidden = true;
  try {
    const report = await (await api("v1/routes", { method: "POST", body: await bodyOf(false) })).json();
    explain(report.routing, "would");
    say(`${report.model} would edit, in ${report.evaluations} evaluations at most.`);
  } catch (error) { say(error.message, true); } finally { busy(false); }
});

async function lists() {
  const [models, experts] = await Promise.all(["v1/models", "v1/experts"].map(async (path) => (await api(path)).json()));
  $("model").append(...models.data.map((model) => make("option", { value: model.id }, model.id === model.expert_set ? model.id : `${model.id} (${model.expert_set})`)));
  const names = [...new Set(experts.data.map((expert) => expert.name))];
  $("expert").append(...names.map((name) => make("option", { value: name }, name)));
}

document.querySelector(".sample")?.click();
lists().catch((error) => say(error.message, true));
