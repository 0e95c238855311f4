/** The page of a poll for those who vote in it. */

import { byId, plural, space, t } from "./ui.js";
import { onChoice, otherTabs, showMine, showResults } from "./vote-board.js";
import { GONE, chat, follow, poll } from "./vote-made.js";

const vote = byId("vote");
const phase = byId("phase");
const hint = byId("hint");
const buttons = [...document.querySelectorAll("[data-choice]")];
let shown;

function words({ phase, mine, revealed }) {
  if (phase === "gone") return [GONE];
  if (phase === "pending") return [t("The vote has not begun yet. It opens here by itself.")];
  const yours = mine && t("You voted for “{name}”.", { name: mine });
  const later = revealed ? [] : [t("The results are shown once they are revealed.")];
  if (phase === "closed") return [t("The vote is closed."), yours || t("You did not vote."), ...later];
  if (mine) return [yours, t("Pick another to change it."), ...later];
  return [t("Pick one. You can change your mind until the vote closes."), ...later];
}

const { look } = follow((it) => {
  const { left, standing, mine, revealed } = it;
  vote.dataset.phase = it.phase;
  vote.toggleAttribute("data-hidden", !revealed);
  phase.textContent = {
    pending: t("Not open yet"),
    open: left ? plural(left, "{n} second left", "{n} seconds left") : t("Voting now"),
    closed: t("Vote closed"),
    gone: t("Gone"),
  }[it.phase];
  for (const button of buttons) button.ariaDisabled = String(it.phase !== "open");
  showMine(mine);
  if (revealed && standing) showResults(standing);
  const text = words(it).join(space);
  if (text !== shown) hint.textContent = shown = text; // it is read out: once
});

const tellTabs = otherTabs(poll, look);
let latest;

onChoice(chat, async (choice) => {
  latest = choice;
  for (let sent = false; !sent && latest === choice; ) {
    try {
      await chat.request("choose", { poll, choice });
      sent = true;
    } catch (error) {
      // Lost on its way, or the answer was: to choose it again is no second vote.
      if (error.code !== "disconnected" || chat.state === "closed") throw error;
    }
  }
  shown = undefined;
  await look();
  tellTabs();
});
