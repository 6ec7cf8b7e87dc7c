"use strict";
const $ = (id) => document.getElementById(id);

/** An element with properties and children; text is never read as HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Call the API; an error has the message that the server sent. */
async function api(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = $("key").value.trim();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  if (!answer.ok && !options.anyStatus) {
    let failure = null;
    try { failure = (await answer.json()).error; } catch { /* not JSON */ }
    throw new Error(failure?.message ?? `The server answered ${answer.status}.`);
  }
  return answer;
}

const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;
const named = (weights) => Object.entries(weights).map(([name, weight]) => weight < 0.995 ? `${name} ${weight.toFixed(2)}` : name).join(" + ") || "–";

$("key").value = sessionStorage.getItem("careedit-key") ?? "";
$("key").addEventListener("change", () => sessionStorage.setItem("careedit-key", $("key").value.trim()));
