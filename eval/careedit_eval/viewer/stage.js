/* Two images of a sample against each other: next to each other, slider, blink, difference, mask. */
import { change, make, state } from "./state.js";

const MODES = { side: "Side by side", slider: "Slider", blink: "Blink", difference: "Difference", mask: "Mask" };
const BLINK_MS = 600;
let timer = 0;

/** The stage of a sample. `pictures` is a list of {name, label, url}; one named "mask" only covers others. */
export function stage(pictures) {
  const box = make("div", { className: "stage" });
  const draw = () => box.replaceChildren(...parts(pictures, (changes) => { change(changes); draw(); }));
  draw();
  return box;
}

function parts(pictures, set) {
  clearInterval(timer);
  const seen = pictures.filter((one) => one.name !== "mask"), mask = pictures.find((one) => one.name === "mask");
  const modes = Object.entries(MODES).map(([mode, label]) => {
    const button = make("button", { type: "button", disabled: mode === "mask" && !mask, title: mode === "mask" && !mask ? "The sample has no mask." : "" }, label);
    button.dataset.mode = mode;
    button.setAttribute("aria-pressed", String(mode === state.mode));
    button.addEventListener("click", () => set({ mode }));
    return button;
  });
  const bar = make("div", { className: "bar" }, ...modes);
  if (state.mode === "side" || (state.mode === "mask" && !mask)) return [bar, row(seen)];
  const left = seen.find((one) => one.name === state.left) ?? seen[0], right = seen.find((one) => one.name === state.right) ?? seen.at(-1);
  if (!left || !right) return [bar, make("p", {}, "The sample has no images here.")];
  if (state.mode !== "mask") bar.append(picker("left", seen, left, set), make("span", {}, "and"));
  bar.append(picker("right", seen, right, set));
  const under = image(state.mode === "mask" ? right : left), over = image(state.mode === "mask" ? mask : right);
  under.className += " under";
  over.className += " over";
  const stack = make("div", { className: "stack" }, under, over);
  stack.dataset.mode = state.mode;
  const caption = make("figcaption", {}, { slider: `${left.label} | ${right.label}`, blink: left.label, mask: `${right.label}, red: the area of the edit` }[state.mode] ?? `|${right.label} − ${left.label}|`);
  if (state.mode === "slider") bar.append(range("Position", 0, 100, 50, (value) => stack.style.setProperty("--cut", `${value}%`)));
  if (state.mode === "difference") bar.append(range("Brightness", 1, 20, state.gain, (value) => { stack.style.setProperty("--gain", value); if (value !== state.gain) change({ gain: value }); }));
  if (state.mode === "blink") {
    const swap = () => { over.hidden = !over.hidden; caption.textContent = over.hidden ? left.label : right.label; };
    over.hidden = true;
    const button = make("button", { type: "button" }, "Swap");
    button.addEventListener("click", () => { clearInterval(timer); swap(); });
    bar.append(button);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) timer = setInterval(swap, BLINK_MS);
  }
  return [bar, make("figure", { className: "single" }, stack, caption)];
}

const row = (seen) => make("div", { className: "pictures" }, ...seen.map((one) => make("figure", {}, image(one), make("figcaption", {}, one.label))));

function image(one) {
  if (!one.url) return make("span", { className: "gone" }, one.missing);
  const element = make("img", { src: one.url, alt: one.label });
  element.addEventListener("load", () => element.classList.toggle("crisp", element.naturalWidth < 300));
  element.addEventListener("error", () => element.replaceWith(make("span", { className: "gone" }, `${one.label}: the image is not here`)));
  return element;
}

function picker(name, seen, chosen, set) {
  const select = make("select", { ariaLabel: name === "left" ? "First image" : "Second image" }, ...seen.map((one) => make("option", { value: one.name, selected: one === chosen }, one.label)));
  select.addEventListener("change", () => set({ [name]: select.value }));
  return select;
}

function range(label, min, max, value, use) {
  const input = make("input", { type: "range", min, max, value, ariaLabel: label });
  input.addEventListener("input", () => use(input.value));
  use(String(value));
  return input;
}
