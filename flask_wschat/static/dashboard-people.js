/** Rooms and users: found, looked at, told something, disconnected. */

import { duration, element, formats } from "./dashboard-charts.js";

const EVERY = 5_000; // ms between two looks at who is there
const TYPING = 250; // ms without a key, after which it is asked
const SAID = 8_000; // ms for which a result is shown
const LONG = 80; // characters of a name in a list

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

// What nobody sees, or what turns the direction of a text, could make one name look like
// another. Two joiners are letters' own, and of emoji.
const UNSEEN = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const shown = (name) => name.replace(UNSEEN, (sign) => `\\u${sign.codePointAt(0).toString(16)}`);
/** In lists; what asks before something is done says the whole of it. */
const short = (name, most = LONG) => {
  const signs = [...name];
  const end = Math.floor(most / 4);
  return signs.length <= most ? name : [...signs.slice(0, most - end), " … ", ...signs.slice(-end)].join("");
};
/** A name as a part of an English sentence, whichever way it is written. */
const said = (name) => (/[\u0590-\u08ff]/.test(name) ? `\u2068${shown(name)}\u2069` : shown(name));

const $ = (id) => document.getElementById(id);

const looks = []; // each lists what is there now

function say(words) {
  const node = element("p", { textContent: words });
  $("said").replaceChildren(node);
  setTimeout(() => node.remove(), SAID);
}

/** Why something failed, and what to do: mind that what was sent may have been done. */
function failure({ code, message }, sent) {
  if (!sent) return "Nothing was done: there is no connection. Try again when the page says Live.";
  if (code === "bad_request" || code === "rate_limited") return `That was not done: ${message}.`;
  return `Nobody knows whether that was done (${message}). Look at the lists before you try again.`;
}

let asking; // whose dialog it is

/** Ask once more before something is done; `act` returns what is said afterwards. */
function confirm(socket, { title, text, label, button, harm = false, required = false, act }) {
  const dialog = $("dialog");
  const form = dialog.querySelector("form");
  const field = dialog.querySelector("textarea");
  const [cancel, submit] = dialog.querySelectorAll("button");
  const error = dialog.querySelector(".error");
  $("dialog-title").textContent = title;
  $("dialog-text").textContent = text;
  $("dialog-field").firstElementChild.textContent = label;
  Object.assign(field, { value: "", required, rows: required ? 3 : 1 });
  error.textContent = "";
  $("said").replaceChildren();
  submit.textContent = button;
  submit.toggleAttribute("data-harm", harm);
  const own = (asking = {});
  const opener = document.activeElement;
  const beside = opener?.closest("[data-list]")?.querySelector("h2");
  let busy;
  const work = (works) => submit.setAttribute("aria-disabled", (busy = works));
  work(false);
  cancel.onclick = () => dialog.close();
  dialog.onclose = () => opener?.isConnected || beside?.focus(); // they may have gone
  field.onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    if (required && !event.ctrlKey && !event.metaKey) return; // a message may have lines
    event.preventDefault();
    if (!event.repeat) form.requestSubmit(); // the key that opened this may be held yet
  };
  form.onsubmit = async (event) => {
    event.preventDefault();
    const value = field.value.trim();
    if (busy) return;
    if (required && !value) {
      error.textContent = "Write something first.";
      return field.focus();
    }
    work(true);
    error.textContent = "";
    const sent = socket.state === "open";
    let words, fault;
    try {
      words = await act(value);
    } catch (refused) {
      fault = failure(refused, sent);
    }
    // Somebody may have closed it meanwhile, and asked for something else.
    const open = own === asking && dialog.open;
    if (open) work(false);
    if (open && fault) error.textContent = fault;
    else {
      if (open) dialog.close();
      say(fault ?? words);
    }
    for (const look of looks) look();
  };
  dialog.showModal();
}

function button(words, about, harm, press) {
  const node = element("button", { type: "button", textContent: words, onclick: press });
  node.setAttribute("aria-label", `${words} ${about}`.trim());
  node.toggleAttribute("data-harm", harm);
  return node;
}

/** Who was there with the keyboard goes on from beside it. */
function remove(node, beside) {
  if (node.contains(document.activeElement)) beside.focus();
  node.remove();
}

/** A connection in words. */
function about({ since, rooms, room_count: all = rooms.length, queued, worker }) {
  const some = rooms.slice(0, 3);
  const more = all > some.length ? ` and ${all - some.length} more` : "";
  return [
    `open for ${duration(Math.max(0, Date.now() / 1000 - since))}`,
    some.length ? `in ${some.map((name) => said(short(name, 24))).join(", ")}${more}` : "in no room",
    `${formats.bytes(queued)} queued`,
    `at ${worker}`,
  ].join(" · ");
}

/** `still`: whether nothing shall change by itself. */
export function people(socket, still) {
  const ask = async (type, fields) => (await socket.request(type, fields)).result;

  const sendTo = (what, name) =>
    confirm(socket, {
      title: `Send to ${said(name)}`,
      text: what === "room"
        ? "Everybody in this room gets it, and it is kept in the room's history."
        : "All connections of this user get it, and it is kept in their inbox.",
      label: "Message",
      button: "Send",
      required: true,
      act: async (text) => {
        const sent = await ask("send", { text, [what]: name });
        return sent ? `Sent to ${said(name)}.` : `${said(name)} has gone: it waits in the inbox.`;
      },
    });

  const kick = (user, count, id) =>
    confirm(socket, {
      title: id ? `Disconnect this connection of ${said(user)}?` : `Disconnect ${said(user)}?`,
      text: (id ? "It closes" : `${plural(count, "connection closes", "connections close")}`)
        + " with code 4000: a page with wschat.js stays away until it is reloaded.",
      label: "Reason that they are told (may be empty)",
      button: "Disconnect",
      harm: true,
      act: async (reason) => {
        const closed = await ask("kick", id ? { user, id, reason } : { user, reason });
        return closed ? `${said(user)}: ${plural(closed, "connection")} closed.` : `${said(user)} had gone already.`;
      },
    });

  /** The connections of one user, beneath their name. */
  function details(user, into) {
    const told = element("p", { className: "hint", textContent: "Asking…" });
    const list = element("ul", { tabIndex: -1 });
    list.setAttribute("aria-label", `Connections of ${said(short(user))}`);
    const rows = new Map();
    into.replaceChildren(told, list);
    return async () => {
      try {
        const found = await ask("connections", { user });
        const ids = new Set(found.map(({ id }) => id));
        for (const [id, { node }] of rows) {
          if (ids.has(id)) continue;
          rows.delete(id);
          remove(node, list);
        }
        for (const connection of found) {
          const { id, route, address } = connection;
          if (!rows.has(id)) {
            const path = shown(short(route));
            const where = address ? `${path} from ${address}` : path;
            const small = element("small");
            const node = element("li", {}, element("span", { className: "name" }, where, small),
              button("Disconnect…", `the connection on ${where}`, true, () => kick(user, 1, id)));
            rows.set(id, { node, small });
            list.append(node);
          }
          const words = about(connection);
          const { small } = rows.get(id);
          if (small.textContent !== words) small.textContent = words;
        }
        told.textContent = found.length ? "" : "No connection is left.";
      } catch (error) {
        if (error.code !== "disconnected") told.textContent = `Not known: ${error.message}.`;
      }
    };
  }

  function entry(what, name) {
    const small = element("small");
    const does = element("div", { className: "does" });
    const node = element("li", {}, element("span", { className: "name" }, element("bdi", {}, shown(short(name))), small), does);
    const whom = said(short(name));
    const made = { node, small, count: 0, refresh: () => {} };
    if (what === "users") {
      const more = element("div", { className: "more", hidden: true });
      const opener = button("Connections", `of ${whom}`, false, () => {
        const opens = more.hidden;
        more.hidden = !opens;
        opener.setAttribute("aria-expanded", opens);
        made.refresh = opens ? details(name, more) : () => {};
        made.refresh();
      });
      opener.setAttribute("aria-expanded", "false");
      does.append(opener,
        button("Send…", `to ${whom}`, false, () => sendTo("user", name)),
        button("Disconnect…", whom, true, () => kick(name, made.count)));
      node.append(more);
    } else does.append(button("Send…", `to ${whom}`, false, () => sendTo("room", name)));
    return made;
  }

  for (const section of document.querySelectorAll("[data-list]")) {
    const what = section.dataset.list;
    const field = section.querySelector("input");
    const hint = section.querySelector(".hint");
    const list = section.querySelector(".list");
    const heading = section.querySelector("h2");
    const entries = new Map();
    let timer, turn;
    let typed = false; // to who searched an answer is told, and not each few seconds

    const look = async () => {
      clearTimeout(timer);
      const own = (turn = {});
      const part = field.value.trim();
      if (socket.state === "open" && !document.hidden) {
        try {
          const answer = await ask("find", { what, part });
          if (own !== turn) return;
          show(answer, part);
        } catch (error) {
          if (own !== turn) return;
          if (error.code !== "disconnected") tell(`Not known: ${error.message}.`);
        }
      }
      timer = setTimeout(again, EVERY);
    };
    const again = () => {
      if (!still()) look();
      else timer = setTimeout(again, EVERY);
    };
    const tell = (words) => {
      if (hint.textContent !== words) hint.textContent = words;
      if (typed) $("news").textContent = `${heading.textContent}: ${words}`;
      typed = false;
    };
    const show = ({ found, total }, part) => {
      const names = new Set(found.map(({ name }) => name));
      // Where somebody points, or is with the keyboard, nothing changes places.
      const held = list.matches(":hover, :focus-within");
      for (const [name, { node }] of entries) {
        if (names.has(name)) continue;
        entries.delete(name);
        remove(node, heading);
      }
      found.forEach(({ name, connections, people }, n) => {
        const made = entries.get(name) ?? entry(what, name);
        entries.set(name, made);
        if (!(held && made.node.isConnected) && list.children[n] !== made.node) list.insertBefore(made.node, (!held && list.children[n]) || null);
        made.count = connections;
        const users = people === undefined ? "" : `, ${plural(people, "user")}`;
        const words = plural(connections, "connection") + users;
        if (made.small.textContent !== words) made.small.textContent = words;
        made.refresh();
      });
      const kind = what.slice(0, -1);
      if (total > found.length) tell(`The biggest ${found.length} of ${plural(total, kind)}: search for others.`);
      else if (found.length) tell(`${plural(found.length, kind)}${part ? " found" : ""}`);
      else tell(part ? `No such ${kind} is here.` : `No ${what} now.`);
    };

    field.addEventListener("input", () => {
      clearTimeout(timer);
      typed = true;
      timer = setTimeout(look, TYPING);
    });
    heading.tabIndex = -1;
    looks.push(look);
    socket.onState(({ state }) => state === "open" && look());
    document.addEventListener("visibilitychange", look);
  }
}
