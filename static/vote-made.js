/** A poll that somebody made, for who votes in it and for who presents it. */

import { byId, plural, showStatus, t, toast } from "./ui.js";
import { hearResults } from "./vote-board.js";
import { phaseOf } from "./vote-shares.js";

const { dataset } = byId("vote");
export const { poll } = dataset;
export const GONE = t(
  "This poll is gone: it was deleted, it is over a day old, or the server forgot it at a restart.",
);
export const chat = new WSChat(dataset.socket);

/**
 * Call `show` with how it is, at first and at each change: `phase` ("pending", "open",
 * "closed" or "gone"), `left` (seconds of a countdown, or undefined), `revealed`, `mine`,
 * and `standing` (counts and total) where this browser may know it.
 */
export function follow(show) {
  const it = { ...JSON.parse(dataset.state), mine: null };
  let ahead; // seconds that the server's clock is before ours
  let soonest = Infinity; // ms that the answer took by which we know
  let timer, stop, said;

  function update() {
    clearTimeout(timer);
    if (ahead === undefined) return; // it may have ended: our clock cannot tell
    const now = Date.now() / 1000 + ahead;
    if (it.phase !== "gone") it.phase = phaseOf(it, now);
    const left = it.phase === "open" && it.ends !== null ? it.ends - now : 0;
    it.left = left ? Math.ceil(left) : undefined;
    if (left) timer = setTimeout(update, 1000 * (left - Math.ceil(left) + 1) + 5);
    if (left && (it.ends !== said || it.left === 10)) {
      said = it.ends;
      byId("said").textContent = plural(it.left, "{n} second left", "{n} seconds left");
    } else if (!left && said) byId("said").textContent = said = "";
    show(it);
  }

  function hear() {
    if (!it.revealed && !("mine" in dataset)) return;
    stop ??= hearResults(chat, poll, (standing) => {
      it.standing = standing;
      update();
    });
  }

  async function look() {
    const asked = Date.now();
    try {
      const { result } = await chat.request("look", { poll });
      const took = Date.now() - asked;
      if (took < soonest) {
        soonest = took;
        ahead = result.now - (asked + took / 2) / 1000;
      }
      it.mine = result.mine;
      update();
    } catch ({ code }) {
      if (chat.state === "open" && code !== "forbidden") setTimeout(look, 1000);
    }
  }

  function gone() {
    it.phase = "gone";
    stop?.();
    ahead ??= 0;
    update();
  }

  showStatus(chat);
  chat.onState(({ state }) => {
    if (state !== "open") return;
    soonest = Infinity; // our clock may have been set meanwhile
    look();
  });
  chat.join(`poll/${poll}`, {
    onMessage({ data }) {
      if (data.deleted) return gone();
      Object.assign(it, data);
      hear();
      update();
    },
    onPresence: (present, change, count) => (byId("online").textContent = count),
    onError: gone,
  });
  hear();
  return { look };
}

byId("copy").addEventListener("click", async () => {
  const link = byId("link");
  link.select();
  let copied = true;
  try {
    await navigator.clipboard.writeText(link.value);
  } catch {
    copied = document.execCommand("copy"); // over plain http
  }
  toast(copied ? t("The link is copied.") : t("The link is selected: copy it by Ctrl+C."));
});
