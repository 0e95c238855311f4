/** What all pages share. Text from others goes in by textContent only: it stays text. */

export const byId = (id) => document.getElementById(id);

const words = JSON.parse(byId("catalogue")?.textContent ?? "{}"); // English -> this page's language

/** `text` in the language of the page, with `{name}` replaced by `values.name`. */
export const t = (text, values = {}) =>
  (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

/** What is between two sentences. */
export const space = document.documentElement.lang === "zh" ? "" : " ";

/** A new element with these properties and children (elements or text). */
export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}

/** Text as the server takes it: without halves of characters, as a cut leaves them. */
export const whole = (text) => text.toWellFormed?.() ?? text;

/** Whether a click is to lead there, and not to open something beside this page. */
export const isPlain = ({ ctrlKey, metaKey, shiftKey, altKey }) => !(ctrlKey || metaKey || shiftKey || altKey);

/** What people call a user: the server puts a tag behind it, to tell two of a name apart. */
export const nameOf = (user) => user.slice(0, user.lastIndexOf("#"));

/** Fill a circle with somebody's initial, in a colour of their own. */
export function drawAvatar(node, name) {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) % 360;
  node.className = "avatar";
  node.ariaHidden = "true";
  [node.textContent] = name.toUpperCase(); // of one letter may become three
  node.style.setProperty("--hue", hash);
  return node;
}

export const avatar = (name) => drawAvatar(el("span"), name);

for (const node of document.querySelectorAll("[data-avatar]")) {
  drawAvatar(node, node.dataset.avatar);
}

/**
 * Make `list` show these keys, in this order. What is shown already stays, and with it
 * the focus; from one that goes it passes on to its neighbour.
 *
 * make(key): its new <li>. update(node, key): how it looks now.
 */
export function showList(list, keys, make, update) {
  const focused = list.contains(document.activeElement) ? document.activeElement : undefined;
  const index = [...list.children].findIndex((node) => node.contains(focused ?? null));
  const old = new Map([...list.children].map((node) => [node.dataset.key, node]));
  const nodes = keys.map((key) => {
    const node = old.get(key) ?? make(key);
    node.dataset.key = key;
    old.delete(key);
    update(node, key);
    return node;
  });
  for (const node of old.values()) node.remove();
  let next = list.firstElementChild;
  for (const node of nodes) {
    if (node === next) next = next.nextElementSibling;
    else list.insertBefore(node, next);
  }
  if (!focused || focused === document.activeElement) return;
  const heir = list.contains(focused)
    ? focused // it was moved
    : (list.children[index] ?? list.lastElementChild)?.querySelector("a, button");
  (heir ?? byId("main")).focus({ preventScroll: true });
}

/** Return a function that has `work` done with the next frame, once for many calls. */
export function inFrame(work) {
  let frame, timer;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = undefined;
    work();
  };
  return () => {
    if (frame !== undefined) return;
    frame = requestAnimationFrame(run);
    timer = setTimeout(run, 1000); // a page that is not seen has no frames
  };
}

document.querySelector(".language").addEventListener("submit", ({ target: { elements: { back } } }) => {
  back.value = back.value.split("#")[0] + location.hash; // no server is told of it
});

const STATES = {
  connecting: t("Connecting"),
  open: t("Connected"),
  reconnecting: t("Reconnecting"),
  closed: t("Closed"),
};
const LOST = {
  1012: t("The server restarts."),
  1013: t("The server is busy."),
};
const OVER = {
  401: t("You are not logged in."),
  403: t("You may not enter here."),
  1008: t("The server has closed this connection, as too much came from here."),
};

let toldOf;
/** What `showStatus` was given first, once it was. */
export const shownChat = new Promise((resolve) => (toldOf = resolve));

/**
 * Show how the connection does: in the header, and in a banner while there is none. That
 * counts the seconds to the next attempt; it says what to do when there will not be one.
 */
export function showStatus(chat, loginUrl) {
  toldOf(chat);
  const status = byId("status");
  const banner = byId("connection");
  const words = el("p");
  const retry = el("button", { type: "button", className: "quiet" }, t("Try now"));
  retry.onclick = () => chat.reconnect();
  let change, timer, since;

  const sayAway = () => {
    const seconds = Math.ceil((change.retryAt - Date.now()) / 1000);
    const next = { n: change.attempt + 1, seconds };
    let text = t("Attempt {n} …", next);
    if (seconds > 0) text = t("Attempt {n} in {seconds} s.", next);
    if (!navigator.onLine) text = t("This device is offline. It goes on when the network is back.");
    words.textContent = (LOST[change.code] ?? t("Not connected.")) + space + text;
    // Most losses are over before anybody could read of them.
    banner.hidden = navigator.onLine && Date.now() - since < 1000;
  };

  const sayOver = () => {
    const again = el("button", { type: "button", className: "primary" }, t("Try again"));
    again.onclick = () => location.reload();
    const login = el("a", { className: "primary", href: loginUrl + location.hash }, t("Log in again"));
    const reason = change.reason ? t(change.reason) : t("The server has closed this connection.");
    const focused = banner.contains(document.activeElement);
    const why = el("p", { role: "alert" }, OVER[change.code] ?? reason);
    banner.replaceChildren(why, loginUrl ? login : again);
    banner.hidden = false;
    if (focused) banner.lastElementChild.focus();
  };

  const hide = () => {
    if (banner.contains(document.activeElement)) byId("main").focus({ preventScroll: true });
    banner.hidden = true;
  };

  const show = () => {
    clearInterval(timer);
    status.dataset.state = change.state;
    // A status that says the same again would be read out again.
    const { firstElementChild: label } = status;
    if (label.textContent !== STATES[change.state]) label.textContent = STATES[change.state];
    if (change.state !== "reconnecting") since = undefined;
    if (change.state === "closed") return sayOver();
    if (change.state !== "reconnecting") return hide();
    since ??= Date.now();
    if (retry.parentNode !== banner) banner.replaceChildren(words, retry);
    sayAway();
    timer = setInterval(sayAway, 1000);
  };
  chat.onState((next) => {
    change = next;
    show();
  });
  for (const type of ["online", "offline"]) addEventListener(type, show);
}

const far = byId("far"); // the way in for phones, if there is one
far?.addEventListener("beforetoggle", () => {
  const path = location.pathname + location.search + location.hash; // as it is now
  const link = far.querySelector("a");
  link.href = link.textContent = far.dataset.url + path;
  const image = far.querySelector("img");
  image.onload = () => (image.hidden = false); // else there is no code, but an address
  image.src = `${far.dataset.qr}?${new URLSearchParams({ path })}`;
});

/** Show a short message at the bottom for a few seconds. */
export function toast(text) {
  const node = el("p", {}, text);
  byId("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

/** plural(2, "{n} vote", "{n} votes"): both are entries of the words, in any language. */
export const plural = (count, one, many) => t(count === 1 ? one : many, { n: count });
