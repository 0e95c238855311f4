/** What all pages share. Text from others goes in by textContent only: it stays text. */

export const byId = (id) => document.getElementById(id);

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
  node.textContent = [...name][0].toUpperCase();
  node.style.setProperty("--hue", hash);
  return node;
}

export const avatar = (name) => drawAvatar(el("span"), name);

for (const node of document.querySelectorAll("[data-avatar]")) {
  drawAvatar(node, node.dataset.avatar);
}

const STATES = {
  connecting: "Connecting",
  open: "Connected",
  reconnecting: "Reconnecting",
  closed: "Closed",
};

/** Show in the header how the connection does; say what to do when it is over. */
export function showStatus(chat, loginUrl = location.href) {
  const status = byId("status");
  chat.onState(({ state, reason }) => {
    status.dataset.state = state;
    status.firstElementChild.textContent = STATES[state];
    status.title = state === "reconnecting" ? "It will come back by itself." : "";
    if (state !== "closed") return;
    const link = el("a", { href: loginUrl }, "Log in again");
    const text = reason || "The server has closed this connection.";
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

export const plural = (count, one, many = `${one}s`) =>
  `${count} ${count === 1 ? one : many}`;
