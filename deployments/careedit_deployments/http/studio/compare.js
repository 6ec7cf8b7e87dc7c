/* A result next to its source: a slider, blinking, or the difference. */

import { make } from "./common.js";

const BLINK_MS = 700, GAIN = 4;
const MODES = { slider: "Slider", blink: "Blink", difference: "Difference" };

export class Comparison {
  /** `stage` has the image of the result; `before` is the address of the source's image. */
  constructor(stage, result, before) {
    this.stage = stage;
    this.result = result;
    this.over = make("img", { src: before, alt: "", className: `over ${result.className}` });
    this.change = make("canvas", { className: `over ${result.className}`, hidden: true, role: "img", "aria-label": "The difference, four times as strong: black is unchanged" });
    stage.append(this.over, this.change);
    this.slide = make("input", { type: "range", min: 0, max: 100, value: 0, "aria-label": "Show the source" });
    this.slide.addEventListener("input", () => this.clip());
    this.buttons = Object.entries(MODES).map(([mode, text]) => {
      const one = make("button", { type: "button", "aria-pressed": "false", "data-mode": mode }, text);
      one.addEventListener("click", () => this.show(mode));
      return one;
    });
    this.controls = make("div", { className: "row compare" }, make("div", { className: "group", role: "group", "aria-label": "Compare with the source" }, ...this.buttons), this.slide);
    this.show("slider");
  }

  clip() {
    this.over.style.clipPath = `inset(0 ${100 - this.slide.value}% 0 0)`;
  }

  show(mode) {
    clearInterval(this.timer);
    for (const one of this.buttons) one.setAttribute("aria-pressed", String(one.dataset.mode === mode));
    this.slide.hidden = mode !== "slider";
    this.over.hidden = mode === "difference";
    this.change.hidden = mode !== "difference";
    if (mode === "slider") this.clip();
    else if (mode === "blink") {
      this.over.style.clipPath = "none";
      this.timer = setInterval(() => {
        if (!this.over.isConnected) return clearInterval(this.timer);
        this.over.hidden = !this.over.hidden;
      }, BLINK_MS);
    } else this.draw();
  }

  /** Draw how much each pixel differs, amplified so that small changes are seen. */
  async draw() {
    await Promise.all([this.result.decode(), this.over.decode()]);
    const { naturalWidth: width, naturalHeight: height } = this.result;
    Object.assign(this.change, { width, height });
    const ink = this.change.getContext("2d", { willReadFrequently: true });
    ink.drawImage(this.over, 0, 0, width, height);
    ink.globalCompositeOperation = "difference";
    ink.drawImage(this.result, 0, 0, width, height);
    const drawn = ink.getImageData(0, 0, width, height);
    for (let i = 0; i < drawn.data.length; i++) drawn.data[i] = i % 4 === 3 ? 255 : Math.min(255, GAIN * drawn.data[i]);
    ink.putImageData(drawn, 0, 0);
  }
}
