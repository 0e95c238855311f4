/** Buttons that break something: what is asked for, and what a page has seen of it. */

import { t } from "./ui.js";

const SECONDS = { freeze: 10, redis: 10 };

const BEGUN = {
  cut: t("Cut."),
  freeze: t("Frozen for 10 s."),
  swallow: t("All that is sent now disappears."),
  kill: t("Its worker is killed."),
  redis: t("Redis is stopped for 10 s."),
};

const seconds = (from, to) => ((to - from) / 1000).toFixed(1);

/**
 * Have the buttons `[data-pull]` in `place` pull at the socket of `chat`. Each time
 * something is seen, `say(words)` is called; `pulled(what)` when it begins.
 */
export function plugs(place, chat, say, pulled = () => {}) {
  let began; // when it was pulled; undefined: nothing is pulled
  let noticed;

  place.addEventListener("click", async ({ target }) => {
    const what = target.closest("[data-pull]")?.dataset.pull;
    if (!what) return;
    if (chat.state !== "open") return say(t("There is no connection to pull at."));
    began = Date.now();
    noticed = undefined;
    const mine = began;
    say(BEGUN[what]);
    pulled(what);
    if (SECONDS[what]) setTimeout(() => over(what, mine), 1000 * (SECONDS[what] + 1));
    try {
      // The answer is cut off, frozen or swallowed with everything else.
      await chat.request("pull", { what }, { timeout: 60_000 });
    } catch (error) {
      if (["disconnected", "timeout"].includes(error.code)) return;
      began = undefined;
      say(error.code === "rate_limited" ? t("That was quick. Please wait a second.") : t(error.message));
    }
  });

  chat.onState(({ state }) => {
    if (began === undefined) return;
    if (state === "reconnecting") noticed ??= Date.now();
    if (state !== "open" || noticed === undefined) return;
    const words = { a: seconds(began, noticed), b: seconds(noticed, Date.now()) };
    say(t("The page noticed after {a} s, and was connected again {b} s later.", words));
    began = undefined;
  });

  function over(what, mine) {
    if (began !== mine || noticed !== undefined) return;
    began = undefined;
    if (what === "redis") say(t("Redis is there again. What has waited is stored now."));
    else say(t("It goes on. The page has waited, and what was late is here."));
  }
}
