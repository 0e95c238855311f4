/** The choices of a poll with their bars, as all pages of the vote have them. */

import { byId, plural, t } from "./ui.js";
import { percentages } from "./vote-shares.js";

const QUIET = 5000; // ms between two results that are read out
const SOON = 500; // until the first is: more may come with it

const FAILED = {
  disconnected: t("The connection was lost. Please try again."),
  timeout: t("The server did not answer. Please try again."),
  rate_limited: t("That was too fast. Please try again in a moment."),
  unavailable: t("The demo's storage cannot be reached. Please try again soon."),
};
export const explain = ({ code, message }) => FAILED[code] ?? t(message);

const choices = [...document.querySelectorAll("[data-choice]")];
let words, timer;
let last = -QUIET;

/** Have it read out, unless there is something newer by then. */
function readOut(text) {
  words = text;
  timer ??= setTimeout(() => {
    [timer, last] = [undefined, performance.now()];
    byId("said").textContent = words;
  }, Math.max(SOON, last + QUIET - performance.now()));
}

/** What the page calls a choice: those of the standing poll in its own language. */
export const labelOf = (choice) =>
  choices.find(({ dataset }) => dataset.choice === choice).querySelector(".label").textContent;

export function showTotal(total) {
  byId("total").textContent = total;
  byId("total").previousElementSibling.textContent = plural(total, "vote", "votes");
}

export function showResults({ counts, total }) {
  const votes = choices.map(({ dataset }) => counts[dataset.choice] ?? 0);
  const shares = percentages(votes);
  const most = Math.max(1, ...votes);
  for (const [index, node] of choices.entries()) {
    node.style.setProperty("--share", total ? votes[index] / total : 0);
    node.toggleAttribute("data-leads", votes[index] === most);
    node.querySelector(".votes").textContent = plural(votes[index], "{n} vote", "{n} votes");
    node.querySelector(".percent").textContent = `${shares[index]}%`;
  }
  showTotal(total);
  const leads = votes.indexOf(most);
  if (leads < 0) return;
  const name = labelOf(choices[leads].dataset.choice);
  readOut(t("“{name}” leads: {percent}% of the votes.", { name, percent: shares[leads] }));
}

export function showMine(mine) {
  for (const node of choices) node.ariaPressed = String(node.dataset.choice === mine);
}

/** Say in the hint what became of a vote that `send(choice)` sends, for each click. */
export function onChoice(chat, send) {
  const hint = byId("hint");
  for (const node of choices) {
    node.addEventListener("click", async () => {
      if (node.ariaDisabled === "true") return;
      if (chat.state !== "open") {
        hint.textContent = t("There is no connection now. Your vote is sent when it is back.");
      }
      const slow = setTimeout(() => {
        if (chat.state === "open") hint.textContent = t("Your vote is on its way …");
      }, 1000);
      try {
        await send(node.dataset.choice);
      } catch (error) {
        hint.textContent = explain(error);
      }
      clearTimeout(slow);
    });
  }
}

/** Call `changed` when another tab of this browser has voted; return what tells the others. */
export function otherTabs(poll, changed) {
  const tabs = new BroadcastChannel(`vote ${poll}`);
  tabs.addEventListener("message", changed);
  return () => tabs.postMessage("voted");
}

/** Call `handler` with how a poll that may be known stands; return what ends that. */
export function hearResults(chat, poll, handler) {
  const room = chat.join(`results/${poll}`);
  const off = chat.poll(poll).on(handler);
  return () => {
    off();
    room.leave();
  };
}
