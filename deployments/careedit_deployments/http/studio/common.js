/* What every page uses: elements, and calls of the API with the visitor's key. */

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; text is never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A button that calls `act` when it is pressed. */
export function button(text, act, properties = {}) {
  const made = make("button", { type: "button", ...properties }, text);
  made.addEventListener("click", act);
  return made;
}

/** Call the API; an error has the server's sentence as its message, and its HTTP status. */
export async function api(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = $("key").value.trim();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Check the connection and try again.");
  }
  if (!answer.ok && !options.anyStatus) {
    let failure = null;
    try { failure = (await answer.json()).error; } catch { /* not JSON */ }
    const error = new Error(failure?.message ?? `The server answered ${answer.status}. Try again.`);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

/** POST a JSON body; returns the JSON answer. */
export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await api(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** Show a sentence about the state of the page. */
export function say(text, bad = false) {
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "";
}

export const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;
export const named = (weights) => Object.entries(weights).map(([name, weight]) => weight < 0.995 ? `${name} ${weight.toFixed(2)}` : name).join(" + ") || "–";

$("key").value = sessionStorage.getItem("careedit-key") ?? "";
$("key").addEventListener("change", () => sessionStorage.setItem("careedit-key", $("key").value.trim()));
