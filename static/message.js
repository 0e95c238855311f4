/** How one message looks, and the lines between messages. */

import { avatar, byId, el, nameOf, plural, space, t } from "./ui.js";
import { alike, isLong, pieces, wordsOf } from "./text.js";

const { lang } = document.documentElement;
const locale = navigator.languages.find((spoken) => spoken.startsWith(lang)) ?? lang;
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });
const days = new Intl.DateTimeFormat(locale, { dateStyle: "full" });
const near = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });

const dateOf = ({ at }) => new Date(at * 1000);
export const dayOf = (message) => dateOf(message).toDateString();

function nameOfDay(date) {
  const ago = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5);
  return ago === 0 || ago === 1 ? near.format(-ago, "day") : days.format(date);
}

function timeOf(message) {
  const date = dateOf(message);
  if (isNaN(date)) return "";
  return el("time", { dateTime: date.toISOString(), title: whole.format(date) }, clock.format(date));
}

/** The line above the first message of a day. */
export function lineOfDay(message) {
  const date = dateOf(message);
  return el("p", { className: "line day" }, el("time", { dateTime: date.toISOString() }, nameOfDay(date)));
}

/** The line above what came while nobody looked. */
export function lineOfNews(count) {
  const text = plural(count, "{n} new message since you left", "{n} new messages since you left");
  return el("p", { className: "line news" }, el("span", {}, text));
}

/** A sentence, translated, as nodes: names in it have a direction of their own. */
export const phrase = (text, values) =>
  text.split(/\{(\w+)\}/).map((part, n) => (n % 2 ? el("bdi", {}, String(values[part])) : part));

/** Why something was refused, for who asked for it. */
export function explain({ code, message }) {
  const known = {
    full: t("Too much is waiting."),
    disconnected: t("The connection has ended."),
    timeout: t("The server does not answer."),
    rate_limited: t("That was too fast. Please wait a moment."),
    too_big: t("It is too long."),
    too_many: t("That is too much. Please wait for an answer."),
    unavailable: t("The demo's storage cannot be reached. Please try again soon."),
  };
  return known[code] ?? t(message);
}

/** A message, without its foot. */
export function messageNode({ from, data }, me, names) {
  const own = from === me;
  const name = from === null ? t("The server") : nameOf(from);
  const words = wordsOf(data);
  const bubble = el("div", { className: "bubble" },
    el("p", { className: own ? "from hidden" : "from" }, own ? t("You") : el("bdi", {}, name)),
    bodyOf(words, me, names),
    el("p", { className: "foot" }));
  if (isLong(words)) shorten(bubble);
  const node = el("li", { className: own ? "message own" : "message" }, avatar(name), bubble);
  if (!own && bubble.querySelector("mark")) node.classList.add("calls");
  return node;
}

function bodyOf(words, me, names) {
  const mine = alike(nameOf(me));
  const nodes = pieces(words, names).map(({ text, link, name }) => {
    // An address is shown as it is, so nobody is led elsewhere than it says.
    if (link) return el("a", { href: link, target: "_blank", rel: "noopener noreferrer nofollow ugc" }, text);
    if (name) return el(name === mine ? "mark" : "span", { className: "mention" }, el("bdi", {}, text));
    return text;
  });
  return el("p", { className: "body", dir: "auto" }, ...nodes);
}

/** Show the beginning of it only, with a button for the rest. */
function shorten(bubble) {
  const body = bubble.querySelector(".body");
  const button = el("button", { type: "button", className: "quiet" }, t("Show more"));
  body.classList.add("short");
  button.ariaExpanded = "false";
  button.addEventListener("click", () => {
    const short = body.classList.toggle("short");
    button.textContent = short ? t("Show more") : t("Show less");
    button.ariaExpanded = String(!short);
  });
  body.after(button);
}

/** When it was said, and of mine what became of it: { state, why, again, discard }. */
export function footOf(message, fate) {
  const foot = [timeOf(message)];
  return fate ? [...foot, ...fateOf(fate)] : foot;
}

function fateOf({ state, why, again, discard }) {
  if (state === "sending") return [el("span", {}, t("Sending…"))];
  if (state !== "failed") {
    const name = { sent: t("Sent"), delivered: t("Delivered"), read: t("Read") }[state];
    const tick = el("span", { className: "tick", title: name }, state === "sent" ? "✓" : "✓✓");
    tick.dataset.fate = state;
    tick.ariaHidden = "true";
    return [tick, el("span", { className: "hidden" }, name)];
  }
  const button = (text, act) => el("button", {
    type: "button",
    onclick: () => {
      byId("words").focus(); // this button goes
      act();
    },
  }, text);
  return [
    el("span", { className: "why" }, t("Not sent.") + space + why),
    button(t("Try again"), again),
    button(t("Discard"), discard),
  ];
}

const CAME = {
  one: t("{name} joined"),
  two: t("{name} and {other} joined"),
  many: t("{name} and {n} others joined"),
  nameless: (n) => plural(n, "{n} person joined", "{n} people joined"),
};
const WENT = {
  one: t("{name} left"),
  two: t("{name} and {other} left"),
  many: t("{name} and {n} others left"),
  nameless: (n) => plural(n, "{n} person left", "{n} people left"),
};

/** So many came, or went, as nodes. */
function told({ first, second, count }, { one, two, many, nameless }) {
  if (!count) return [];
  if (!first) return [nameless(count)];
  const name = nameOf(first);
  if (count === 1) return phrase(one, { name });
  if (count === 2 && second) return phrase(two, { name, other: nameOf(second) });
  return phrase(many, { name, n: count - 1 });
}

/** The line about a crowd, as nodes. */
export function tellOf(crowd) {
  const [came, went] = crowd.sides;
  const between = came.count && went.count ? [" · "] : [];
  return [...told(came, CAME), ...between, ...told(went, WENT)];
}
