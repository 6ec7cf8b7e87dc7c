import { $, api, make, named, percent } from "./common.js";

const EVERY_MS = 5000;

function row(cells) {
  return make("tr", {}, ...cells.map(([text, className]) => make("td", { className: className ?? "" }, String(text))));
}
const interval = (mean) => mean ? `${mean.value.toFixed(2)} (${mean.low.toFixed(2)} – ${mean.high.toFixed(2)})` : "–";
const ago = (seconds) => seconds < 90 ? `${Math.max(0, Math.round(seconds))} s ago` : seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;

async function show() {
  const hours = $("hours").value;
  const [ready, arms, experts] = await Promise.all([
    api("readyz", { anyStatus: true }), api(`v1/arms${hours ? `?hours=${hours}` : ""}`), api("v1/experts"),
  ].map(async (answer) => (await answer).json()));
  $("ready").textContent = ready.status === "ok" ? "Ready to edit" : "Not ready";
  $("ready").className = ready.status === "ok" ? "good" : "bad";
  $("reasons").replaceChildren(...Object.entries(ready.reasons ?? {}).map(([part, reason]) => make("li", {}, `${part}: ${reason}`)));
  $("arms").replaceChildren(...arms.data.map((arm) => row([
    [arm.arm], [arm.expert_set], [arm.shadow ? "shadow" : percent(arm.share), "n"], [arm.users, "n"], [arm.edits, "n"],
    [arm.errors ? percent(arm.errors.value, 1) : "–", "n"], [interval(arm.judge), "n"],
    [`${arm.wins} of ${arm.wins + arm.losses + arm.ties}`, "n"], [arm.seconds == null ? "–" : arm.seconds.toFixed(2), "n"],
    [arm.cut ? `disabled: ${arm.reason}` : "live", arm.cut ? "bad wide" : "good"],
  ])));
  $("experts").replaceChildren(...experts.data.map((expert) => row([
    [expert.name], [expert.model], [expert.deployment ?? "–"], [expert.state ?? "–"], [expert.handles.join(", ") || expert.competence || "–", "wide"],
  ])));
  const now = Date.now() / 1000;
  $("latest").replaceChildren(...arms.latest.map((edit) => row([
    [ago(now - edit.created)], [edit.shadow ? `${edit.arm} (shadow)` : edit.arm], [named(edit.experts)],
    [edit.outcome, ["failed", "expired"].includes(edit.outcome) ? "bad" : ""], [edit.seconds.toFixed(2), "n"], [edit.score == null ? "–" : edit.score.toFixed(2), "n"],
  ])));
  $("when").textContent = `as of ${new Date().toLocaleTimeString()}`;
}

async function refresh() {
  try {
    if (!document.hidden) await show();
  } catch (error) {
    $("ready").textContent = error.message;
    $("ready").className = "bad";
  }
}
$("hours").addEventListener("change", refresh);
$("key").addEventListener("change", refresh);
setInterval(refresh, EVERY_MS);
refresh();
