/** The page of a poll for the big screen, and the controls of who made it. */

import { byId, t } from "./ui.js";
import { explain, showResults, showTotal } from "./vote-board.js";
import { GONE, chat, follow, poll } from "./vote-made.js";

const stage = byId("vote");
const hint = byId("hint");
const phase = byId("phase");
const controls = byId("controls"); // of its maker only

const button = (to) => controls.querySelector(`[data-to="${to}"]:not([data-seconds])`);
const allow = (node, allowed) => (node.ariaDisabled = String(!allowed));

follow((it) => {
  const { left, standing, revealed } = it;
  stage.dataset.phase = it.phase;
  stage.toggleAttribute("data-hidden", !revealed);
  stage.toggleAttribute("data-counts", Boolean(left));
  stage.toggleAttribute("data-hurry", left <= 10);
  phase.textContent = {
    pending: t("Not open yet"),
    open: left ? t("{n} s", { n: left }) : t("Voting now"),
    closed: revealed ? t("Result") : t("Vote closed"),
    gone: t("Gone"),
  }[it.phase];
  if (standing) revealed ? showResults(standing) : showTotal(standing.total);
  if (it.phase === "gone") hint.textContent = GONE;
  if (!controls) return;
  const label = { open: t("Stop the clock"), closed: t("Reopen") }[it.phase];
  button("open").firstElementChild.textContent = label ?? t("Open");
  const there = it.phase !== "gone";
  for (const node of controls.querySelectorAll("[data-to]")) allow(node, there);
  allow(button("open"), there && (it.phase !== "open" || left));
  allow(button("close"), it.phase === "open");
  allow(button("reveal"), there && !revealed);
});

if (controls) byId("full").hidden = !document.fullscreenEnabled;

async function steer(to, seconds) {
  hint.textContent = chat.state === "open" ? "" : t("There is no connection now. It is done when it is back.");
  try {
    await chat.request("steer", { poll, to, ...(seconds && { seconds: Number(seconds) }) });
    hint.textContent = "";
    return true;
  } catch (error) {
    hint.textContent = explain(error);
    return false;
  }
}

controls?.addEventListener("click", async ({ target }) => {
  const node = target.closest("button");
  if (!node || node.ariaDisabled === "true") return;
  if (node.id === "full") {
    if (document.fullscreenElement) document.exitFullscreen();
    else stage.requestFullscreen();
  } else if (node.id === "delete") {
    const sure = confirm(t("Delete this poll and its votes?"));
    if (sure && (await steer("delete"))) location.assign(node.dataset.then);
  } else {
    steer(node.dataset.to, node.dataset.seconds);
  }
});

document.addEventListener("keydown", ({ key, target, repeat, ctrlKey, metaKey, altKey }) => {
  if (!controls || !byId("keys").checked || repeat || ctrlKey || metaKey || altKey) return;
  if (target.matches("input:not([type=checkbox])")) return;
  controls.querySelector(`[data-key="${CSS.escape(key.toLowerCase())}"]`)?.click();
});
