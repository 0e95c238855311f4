import { Conversation, View, composer, explain, phrase, wordsOf } from "./talk.js";
import { Ledger, tagsOf } from "./ledger.js";
import { Typists, alike } from "./text.js";
import { avatar, byId, el, inFrame, isPlain, nameOf, plural, showList, showStatus, t, toast } from "./ui.js";

const MANY = 8; // people, from whom on one is looked for by name
const PAUSE = 400; // ms in which receipts are gathered
const SLOW = 4000; // ms after which it is said that a message waits

const page = byId("chat");
const { me, login, socket } = page.dataset;
const { lang } = document.documentElement;
const locale = navigator.languages.find((spoken) => spoken.startsWith(lang)) ?? lang;
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const collator = new Intl.Collator(locale);
const date = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });

const refused = ({ to, mid }, error) => conversations.get(to)?.fail(mid, error);
const chat = new WSChat(socket, { outbox: "localStorage", onRefused: refused });
const conversations = new Map(); // user -> Conversation
const typists = new Typists(6000);
let online = new Set();
let nameless = 0; // people online whose names are not told, as they are too many
let peer = "";
let caughtUp = false; // the inbox was read once
let openSince = 0; // ms

// ---- what outlives the page, in all tabs ----

const NOTES = `private ${me}`;
const ledger = new Ledger(me, {
  read() {
    try {
      return JSON.parse(localStorage.getItem(NOTES)) ?? {};
    } catch {
      return {}; // forbidden, or written by somebody else
    }
  },
  write(notes) {
    try {
      localStorage.setItem(NOTES, JSON.stringify(notes));
    } catch {}
  },
});

addEventListener("storage", ({ key }) => {
  if (key !== NOTES) return;
  ledger.recall();
  draw();
});

// Before the view hears of it: it shows this line.
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !peer) return;
  if (ledger.unread(peer).length) divide(view.conversation);
  view.update(() => {}, true);
});

const view = new View({
  onSeen(message) {
    if (!ledger.see(peer, message)) return;
    oweSoon();
    draw();
  },
});

showStatus(chat, login);

// ---- conversations ----

function conversationWith(user) {
  if (!conversations.has(user)) {
    const tell = (data, options) => chat.tell(user, data, options);
    const fate = (message) => ledger.fate(message);
    const options = { key: `${me} ${user}`, fate, done: draw };
    conversations.set(user, new Conversation(me, tell, options));
  }
  return conversations.get(user);
}

/** Run `change` on the conversation with `user`, whether it is shown or not. */
function update(user, change, now = false) {
  const conversation = conversationWith(user);
  if (user === peer) view.update(() => change(conversation), now);
  else change(conversation);
}

/** Show above which message those begin that came while nobody looked. */
function divide(conversation) {
  const unread = ledger.unread(peer);
  conversation.since((unread[0]?.seq ?? 1) - 1, unread.at(-1)?.seq ?? 0, unread.length);
}

function take(message, live) {
  if (message.from === null) return live && toast(wordsOf(message.data)); // the application's
  const user = ledger.add(message);
  typists.end(message.from);
  if (live && message.from !== me && (user !== peer || document.hidden)) announce(user);
  update(user, (conversation) => conversation.add(message));
}

/** Say aloud that there is something elsewhere, but not for each of many messages. */
function announce(user) {
  write(byId("elsewhere"), t("New message from {name}", { name: label(user) }));
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => write(byId("elsewhere"), ""), 10_000);
}

const inbox = chat.inbox({
  onMessage(message) {
    take(message, true);
    oweSoon();
    draw();
  },
  onReset(messages) { // at first, and where the server has lost what came before
    const missed = ledger.begin(inbox.epoch, messages[0]?.seq ?? inbox.seq + 1);
    if (missed && caughtUp) {
      for (const user of [...conversations.keys()]) update(user, (known) => known.lost(), true);
    }
    for (const message of messages) take(message, caughtUp);
    caughtUp = true;
    if (peer) divide(view.conversation);
    oweSoon();
    draw();
  },
  onError: (error) => toast(explain(error)),
});

chat.join("private", {
  onPresence(present, { left }, count) {
    online = new Set(present);
    nameless = count - present.length;
    for (const user of left) typists.end(user);
    draw();
  },
  onError: (error) => toast(explain(error)),
});

// ---- receipts: one for all messages of a person, once it has been quiet for a moment ----

function hear(receipt) {
  if (!ledger.hear(receipt)) return;
  conversations.get(receipt.by)?.refresh();
  oweSoon();
}

chat.join(`receipts of ${me}`, {
  onMessage: ({ data }) => hear(data),
  onReset: (messages) => messages.forEach(({ data }) => hear(data)),
});

let paying; // a timer
let paid = 0; // when the last ones were sent

function oweSoon(pause = Date.now() - paid < 1000 ? PAUSE : PAUSE / 10) {
  paying ??= setTimeout(pay, pause * (1 + Math.random())); // not all tabs at once
}

async function pay() {
  const owed = chat.state === "open" && caughtUp ? ledger.owed() : [];
  if (owed.length) paid = Date.now();
  if (caughtUp) ledger.save();
  const answers = await Promise.allSettled(owed.map(async (receipt) => {
    await chat.request("receipt", receipt);
    ledger.paid(receipt);
  }));
  if (owed.length) ledger.save();
  paying = undefined;
  const refusals = answers.flatMap(({ reason }) => reason ?? []);
  if (refusals.length) oweSoon(Math.max(5000, ...refusals.map(({ retryAfter }) => retryAfter * 1000)));
  else if (owed.length && ledger.owed().length) oweSoon();
}

addEventListener("pagehide", pay);

// ---- the person who is shown ----

function open(user) {
  peer = user;
  page.classList.toggle("open", Boolean(user));
  byId("composer").hidden = !user;
  const conversation = user ? conversationWith(user) : new Conversation(me);
  divide(conversation);
  view.show(conversation, user
    ? t("Nobody but you and {name} can read this.", { name: nameOf(user) })
    : t("Choose somebody to talk to."));
  drawPeer();
  draw();
}

function drawPeer() {
  const ready = caughtUp && chat.state === "open" && !nameless;
  const away = Boolean(peer) && ready && peer !== me && !online.has(peer);
  const name = label(peer);
  if (byId("peer").textContent !== name) byId("peer").replaceChildren(...called(peer));
  byId("peer").hidden = !peer;
  byId("people-title").ariaLevel = peer ? "2" : "1";
  write(byId("summary"), peer && ready ? (away ? t("Offline") : t("Online")) : "");
  const [{ at } = { at: Infinity }] = chat.waiting;
  const stuck = chat.state === "open" && Date.now() - Math.max(at, openSince) > SLOW;
  byId("banner").hidden = !(peer && (stuck || away));
  write(byId("banner"), stuck
    ? t("The server does not answer just now. What you write is sent as soon as it does.") : away
    ? t("{name} is offline. What you write now waits for them.", { name }) : "");
  const writing = typists.at(Date.now()).includes(peer);
  byId("typing").replaceChildren(...(writing ? phrase(t("{name} is typing"), { name }) : []));
}

composer(chat, (data) => {
  const { conversation } = view;
  conversation.deliver(view.write(data));
  setTimeout(draw, SLOW + 100);
}, {
  typing: () => (nameless || online.has(peer)) && chat.state === "open"
    && chat.request("typing", { to: peer }).catch(() => {}),
});

chat.on("typing", ({ from }) => {
  if (from === me) return;
  typists.heard(from, Date.now());
  draw();
});

// ---- the list of people ----

const list = byId("people");
const wanted = byId("wanted");
const ONLINE = "online"; // the key of a heading; no user is called so
let tags = new Map(); // user -> what tells this one from others who are called the same

/** A user's name as text, and as nodes. */
const label = (user) => [nameOf(user), tags.get(user)].filter(Boolean).join(" ");
const called = (user) => [el("bdi", {}, nameOf(user)),
  ...(tags.has(user) ? [" ", el("span", { className: "tag" }, tags.get(user))] : [])];

/** Change a text only if it is another one: so nothing is said aloud twice. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Conversations, the newest first; then who else is online. */
function order() {
  const sought = alike(wanted.value.trim());
  const find = (users) => users.filter((user) =>
    user && user !== me && alike(label(user)).includes(sought));
  const talked = find(ledger.newest());
  const others = find([...new Set([...online, peer])].filter((user) => !talked.includes(user)))
    .sort(collator.compare);
  const heading = talked.length && others.length ? [ONLINE] : [];
  const keys = [...talked, ...heading, ...others];
  const held = list.querySelector(":focus-visible")
    || (list.matches(":hover") && matchMedia("(hover: hover)").matches);
  if (!held) return keys;
  // Nothing moves away under a finger: what is new comes last, for now.
  const before = [...list.children].map(({ dataset }) => dataset.key);
  const added = keys.filter((key) => key !== ONLINE && !before.includes(key));
  return [...before.filter((key) => keys.includes(key)), ...added];
}

const personItem = (user) => (user === ONLINE
  ? el("li", { className: "heading" }, t("Online now"))
  : el("li", {}, el("a", {
    href: `#${encodeURIComponent(user)}`,
    onclick: (event) => isPlain(event) && go(user),
  },
    avatar(nameOf(user)),
    el("span", { className: "name" }),
    el("span", { className: "hidden state" }),
    el("time"),
    el("span", { className: "last", dir: "auto" }),
    el("span", { className: "badge strong" }, el("span", { ariaHidden: "true" }),
      el("span", { className: "hidden" })))));

const drawn = new WeakMap(); // item -> what it shows, as a text

function drawPerson(item, user) {
  if (user === ONLINE) return;
  const here = chat.state !== "open" || nameless ? "" : online.has(user) ? "online" : "offline";
  const message = ledger.last(user);
  const unread = ledger.unread(user).length;
  const typing = typists.at(Date.now()).includes(user);
  const draft = user !== peer && conversations.get(user)?.draft;
  const facts = [label(user), here, message?.at, message?.mid, unread, typing, draft, user === peer];
  const text = facts.join("\n");
  if (drawn.get(item) === text) return;
  drawn.set(item, text);
  const [link] = item.children;
  const [, name, state, time, last, badge] = link.children;
  item.className = [here, message && "talked", unread && "unread"].filter(Boolean).join(" ");
  link.ariaCurrent = user === peer ? "true" : null;
  name.replaceChildren(...called(user));
  write(state, { online: t("Online"), offline: t("Offline") }[here] ?? "");
  if (message) {
    const at = new Date(message.at * 1000);
    const today = at.toDateString() === new Date().toDateString();
    time.dateTime = at.toISOString();
    write(time, (today ? clock : date).format(at));
  }
  time.hidden = !message;
  last.classList.toggle("now", Boolean(typing || draft));
  last.replaceChildren(...preview(message, typing, draft));
  badge.hidden = !unread;
  write(badge.firstElementChild, unread > 99 ? "99+" : `${unread}`);
  write(badge.lastElementChild, plural(unread, "{n} unread message", "{n} unread messages"));
}

/** What is last: what somebody writes now, what I have not sent, or what was said. */
function preview(message, typing, draft) {
  const words = (draft || (message ? wordsOf(message.data) : "")).slice(0, 80);
  if (typing) return [t("typing…")];
  if (draft) return phrase(t("Draft: {words}"), { words });
  if (message?.from === me) return phrase(t("You: {words}"), { words });
  return [words];
}

const draw = inFrame(() => {
  tags = tagsOf(new Set([me, peer, ...ledger.newest(), ...online].filter(Boolean)));
  const keys = order();
  showList(list, keys, personItem, drawPerson);
  const many = Boolean(wanted.value) || keys.length > MANY;
  byId("search").hidden = !many;
  byId("alone").hidden = !caughtUp || many || nameless > 0 || keys.length > 0;
  byId("crowd").hidden = keys.length > 0 && !nameless;
  write(byId("crowd"), nameless
    ? plural(nameless, "{n} person is online.", "{n} people are online: too many to list.")
    : wanted.value && !keys.length ? t("Nobody here is called that.") : "");
  byId("lost").hidden = !ledger.missed;
  const { total } = ledger;
  document.title = `${total ? `(${total}) ` : ""}${t("Private chat")} · Flask-WSChat`;
  drawPeer();
  clearTimeout(draw.timer);
  if (typists.at(Date.now()).length) draw.timer = setTimeout(draw, 1000);
});

wanted.addEventListener("input", () => draw());
wanted.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
  const [first] = order().filter((key) => key !== ONLINE); // what is shown may be older
  if (first) go(first);
});
for (const left of ["pointerleave", "focusout"]) list.addEventListener(left, () => draw());

// ---- what happens ----

chat.onState(({ state }) => {
  if (state === "open") {
    openSince = Date.now();
    setTimeout(draw, SLOW + 100);
    oweSoon();
  }
  draw();
});

chat.on("hello", ({ user }) => {
  if (user && user !== me) location.reload(); // another tab logged in with another name
  // What a page before this one has not got rid of is told by this one.
  for (const { to, mid, data, at } of chat.waiting) {
    const conversation = conversationWith(to);
    if (!conversation.has(mid)) conversation.write(data, { mid, at });
  }
});

function personInAddress() {
  try {
    const user = decodeURIComponent(location.hash.slice(1));
    return /^[^\p{Cc}\p{Bidi_Control}]{1,24}#[0-9a-f]{8}$/u.test(user) ? user : "";
  } catch {
    return ""; // somebody else wrote this address
  }
}

byId("known").addEventListener("click", () => {
  ledger.accept();
  byId("main").focus({ preventScroll: true }); // this button goes
  draw();
});
function go(user) {
  location.hash = encodeURIComponent(user);
  follow(); // at once: what somebody types next is for them
}

function follow() {
  const user = personInAddress();
  if (user !== peer) open(user);
}

addEventListener("hashchange", follow);
byId("back").addEventListener("click", () => {
  const left = peer;
  go(""); // the list is shown from now on, and can have the focus
  list.querySelector(`[data-key="${CSS.escape(left)}"] a`)?.focus();
});
open(personInAddress());
