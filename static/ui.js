/** What all pages share. Text from others goes in by textContent only: it stays text. */

export const byId = (id) => document.getElementById(id);

const words = JSON.parse(byId("catalogue")?.textContent ?? "{}"); // English -> this page's language

/** `text` in the language of the page, with `{name}` replaced by `values.name`. */
export const t = (text, values = {}) =>
  (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

/** A new element with these properties and children (elements or text). */
export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}

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

const STATES = {
  connecting: t("Connecting"),
  open: t("Connected"),
  reconnecting: t("Reconnecting"),
  closed: t("Closed"),
};

/** Show in the header how the connection does; say what to do when it is over. */
export function showStatus(chat, loginUrl) {
  const status = byId("status");
  chat.onState(({ state, code, reason }) => {
    status.dataset.state = state;
    status.firstElementChild.textContent = STATES[state];
    status.title = state === "reconnecting" ? "It will come back by itself." : "";
    if (state !== "closed") return;
    const href = loginUrl ? loginUrl + location.hash : location.href;
    const link = el("a", { href }, loginUrl ? "Log in again" : "Try again");
    const refused = { 401: "You are not logged in.", 403: "You may not enter here." };
    const text = refused[code] || reason || "The server has closed this connection.";
    const over = el("p", { className: "over", role: "alert" }, `${text} `, link);
    byId("main").prepend(over);
  });
}

/** Show a short message at the bottom for a few seconds. */
export function toast(text) {
  const node = el("p", {}, text);
  byId("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

/** plural(2, "{n} vote", "{n} votes"): both are entries of the words, in any language. */
export const plural = (count, one, many) => t(count === 1 ? one : many, { n: count });
