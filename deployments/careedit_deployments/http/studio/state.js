/* What the studio knows, and keeps in the browser's IndexedDB, so that a reload loses nothing.

A node is a picture: a source, or the result of an edit. Its fields: id, parent (id or null), blob, words (the instruction),
report and trace of the edit, and anchor: the {session, turn} at which the server has the same picture, if it has it. */

export const desk = { current: null, references: [] };
export const nodes = new Map();

const FIELDS = ["prompt", "model", "expert", "quality", "n", "steps", "seed", "partials", "filter"];
let database = null;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
const store = (name, mode) => database.transaction(name, mode).objectStore(name);

async function open() {
  const request = indexedDB.open("careedit-studio", 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("nodes", { keyPath: "id" });
    request.result.createObjectStore("desk");
  };
  database = await done(request);
}

/** Read what an earlier visit kept: the nodes, and the desk or undefined. */
export async function restore() {
  await open();
  for (const node of await done(store("nodes", "readonly").getAll())) nodes.set(node.id, node);
  return done(store("desk", "readonly").get("desk"));
}

export async function keepNode(node) {
  nodes.set(node.id, node);
  if (database) await done(store("nodes", "readwrite").put(node));
}

export async function dropNode(node) {
  nodes.delete(node.id);
  if (database) await done(store("nodes", "readwrite").delete(node.id));
}

/** Keep the desk: what is edited, with its mask and references, and the fields of the form. */
export async function keepDesk(mask) {
  if (!database || !desk.current) return;
  const kept = { current: desk.current.id, references: desk.references, mask, fields: fields() };
  await done(store("desk", "readwrite").put(kept, "desk"));
}

export async function forgetAll() {
  nodes.clear();
  if (!database) return;
  await done(store("nodes", "readwrite").clear());
  await done(store("desk", "readwrite").clear());
}

export const newNode = (blob, more = {}) => ({ id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, parent: null, blob, words: "", created: Date.now(), ...more });

export const childrenOf = (node) => [...nodes.values()].filter((one) => one.parent === node.id).sort((a, b) => a.created - b.created);

/** Number of edits between a node and its source. */
export function depthOf(node) {
  let depth = 0;
  for (let one = node; one?.parent; one = nodes.get(one.parent)) depth += 1;
  return depth;
}

const element = (name) => document.getElementById(name);

/** The fields of the form by name; a field that this server does not offer is left out. */
export function fields() {
  return Object.fromEntries(FIELDS.filter((name) => element(name)).map((name) => [name, element(name).value]));
}

/** Fill in the form. A choice that this server no longer offers is left as it is. */
export function fillIn(values) {
  for (const [name, value] of Object.entries(values)) {
    const field = element(name);
    if (!field || !FIELDS.includes(name)) continue;
    if (field.options && ![...field.options].some((option) => option.value === value)) continue;
    field.value = value;
  }
}
