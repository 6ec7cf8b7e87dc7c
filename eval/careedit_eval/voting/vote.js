/* The voting page: asks the server for the rater's next pair, shows it, and sends the verdict before the next one is shown. */

const SETTLE_MS = 400; // a double click, or a key that is pressed twice, is not a vote on the next pair
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", ArrowUp: "both_bad" };
const $ = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("[data-verdict]")];
let rater = sessionStorage.getItem("rater") ?? "", pair = null, open = false, addresses = {};

function say(message) {
  $("said").hidden = !message;
  $("said").textContent = message;
}

function setOpen(value) {
  open = value;
  for (const button of buttons) button.disabled = !value;
}

/** The server's answer; an error has its sentence. */
async function post(path, fields) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) };
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("The server does not answer; start it again, then load this page again."); }
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error);
  return data;
}

async function load(image, address) {
  image.src = address;
  try { await image.decode(); } catch { throw new Error("An image of this pair cannot be read; load the page again, or ask who runs the server."); }
  image.classList.toggle("crisp", image.naturalWidth < 256);
}

async function next() {
  const found = await post("api/pair", { rater });
  $("start").hidden = true;
  $("count").textContent = `${rater}: ${found.votes} ${found.votes === 1 ? "vote" : "votes"}`;
  pair = found.pair;
  $("pair").hidden = pair === null;
  $("done").hidden = pair !== null;
  if (pair === null) return;
  $("instructions").replaceChildren(...found.instructions.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  $("instructions").className = found.instructions.length === 1 ? "single" : "";
  const address = (place) => `picture.png?${new URLSearchParams({ pair, place })}`;
  addresses = { left: address("left"), right: address("right"), source: address("source") };
  const references = [...Array(found.references).keys()].map((i) => Object.assign(new Image(), { alt: `Reference ${i + 1}` }));
  $("references").replaceChildren(...references);
  await Promise.all([
    ...["left", "source", "right"].map((place) => load($(place), addresses[place])),
    ...references.map((image, i) => load(image, address(`reference-${i}`))),
  ]);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  setOpen(true);
}

async function choose(verdict) {
  if (!open) return;
  setOpen(false);
  try {
    await post("api/vote", { rater, pair, verdict });
  } catch (error) {
    say(`The vote is not stored: ${error.message}`);
    setOpen(true);
    return;
  }
  say("");
  await next().catch((error) => say(error.message));
}

/** Show the source in place of both edits, or the edits again. */
function peek(value) {
  if (!open && value) return;
  for (const place of ["left", "right"]) if (addresses[place]) $(place).src = addresses[value ? "source" : place];
}

for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.verdict));
document.addEventListener("keydown", (event) => {
  if ($("pair").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " || event.key in KEYS) event.preventDefault();
  if (event.repeat) return;
  if (event.key === " ") peek(true);
  else if (event.key in KEYS) choose(KEYS[event.key]);
});
document.addEventListener("keyup", (event) => { if (event.key === " " && !$("pair").hidden) { event.preventDefault(); peek(false); } });
window.addEventListener("blur", () => peek(false));
$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  rater = $("rater").value.trim();
  next().then(() => { sessionStorage.setItem("rater", rater); say(""); }).catch((error) => say(error.message));
});
if (rater) next().catch((error) => say(error.message));
