/** The page has two sockets: one to look at, and one that tells what passes on it. */
import { byId, el, showStatus, t } from "./ui.js";
import { frameList, hexOf } from "./protocol-frames.js";
import { byHand, closeFrame } from "./protocol-hand.js";

const { page, guid, echo, wire } = byId("protocol").dataset;
const chat = new WSChat(wire);
showStatus(chat);
const sendByHand = byHand(chat);
const frames = frameList(byId("frames"), { received: t("Browser"), sent: t("Server") });

// ---- the socket to look at -----------------------------------------------------------

let socket; // a plain WebSocket
let opening; // resolves when it is open, or has failed
let begun = 0;
let sentAt = 0;
let closedBy = "";

function showState() {
  [...byId("lamps").children].forEach((lamp, state) => {
    const now = socket?.readyState === state;
    if (now && lamp.ariaCurrent !== "true") {
      lamp.lastElementChild.textContent = t("after {n} ms", { n: Math.round(performance.now() - begun) });
    }
    lamp.ariaCurrent = now ? "true" : null;
  });
  const { readyState } = socket;
  const isIn = document.activeElement?.matches("#connect, #leave");
  byId("connect").disabled = readyState !== WebSocket.CLOSED;
  byId("leave").disabled = readyState !== WebSocket.OPEN;
  if (isIn) document.querySelector("#connect:enabled, #leave:enabled, #text").focus();
}

function connect() {
  begun = performance.now();
  for (const lamp of byId("lamps").children) lamp.lastElementChild.textContent = "";
  const query = `?page=${page}${byId("compress").checked ? "&compress" : ""}`;
  const url = new URL(echo, location.href.replace(/^http/, "ws"));
  const made = new WebSocket(new URL(query, url));
  made.binaryType = "arraybuffer";
  socket = made;
  byId("ended").textContent = byId("said").textContent = "";
  showState();
  opening = new Promise((done) => {
    made.onopen = () => {
      if (made === socket) showState();
      done();
    };
    made.onclose = (event) => {
      if (made === socket) showEnd(event);
      done();
    };
    made.onmessage = ({ data }) => {
      const ms = (performance.now() - sentAt).toFixed(1);
      const text = typeof data === "string" ? data : hexOf(new Uint8Array(data).slice(0, 24), " ");
      const said = text.length > 80 ? `${text.slice(0, 80)}…` : text;
      byId("said").replaceChildren(el("bdi", {}, said), " ", el("small", {}, t("after {n} ms", { n: ms })));
    };
  });
}

function showEnd({ code, reason, wasClean }) {
  showState();
  const words = t("The page is told: code {code}, reason “{reason}”, wasClean {clean}.", { code, reason, clean: wasClean });
  byId("ended").textContent = words;
  if (closedBy) byId("closing").replaceChildren(el("p", {}, el("b", {}, words)));
  closedBy = "";
}

async function opened() {
  if (!(socket?.readyState <= WebSocket.OPEN)) connect();
  await opening;
  return socket;
}

/** Say goodbye, and show that we wait for the answer. */
function close(...args) {
  socket.close(...args);
  showState();
}

async function send(data) {
  const ready = await opened();
  if (ready.readyState === WebSocket.OPEN) ready.send(data);
  sentAt = performance.now();
}

byId("connect").addEventListener("click", connect);
byId("leave").addEventListener("click", () => close(1000, t("Bye")));
byId("compress").addEventListener("change", async () => {
  if (socket?.readyState === WebSocket.OPEN) close(1000);
  connect();
});
byId("say").addEventListener("submit", (event) => {
  event.preventDefault();
  send(byId("text").value);
});
byId("protocol").addEventListener("keydown", (event) => {
  // It ends a word of an input method, and sends nothing.
  if (event.key === "Enter" && (event.isComposing || event.keyCode === 229)) event.preventDefault();
});
byId("ping").addEventListener("click", () => send("ping")); // see demos/protocol.py
byId("sizes").addEventListener("click", ({ target }) => {
  const { size, binary } = target.dataset;
  if (!size) return;
  if (binary === undefined) send("x".repeat(size));
  else send(crypto.getRandomValues(new Uint8Array(Number(size))));
});

// ---- what passes ---------------------------------------------------------------------

byId("clear").addEventListener("click", () => {
  frames.clear();
  byId("no-frames").hidden = false;
});

chat.on("passed", ({ direction, at, frames: passed, left_out: leftOut }) => {
  byId("no-frames").hidden = true;
  passed.forEach((each, n) => {
    const note = !n && leftOut ? t("{n} before it are not shown", { n: leftOut }) : "";
    const said = frames.add({ ...each, direction, at }, note);
    if (each.opcode === 10 && said) byId("said").textContent = `pong: ${said}`;
  });
});

chat.on("unseen", () => {
  byId("no-frames").hidden = true;
  byId("unseen").hidden = false;
});

// ---- the handshake -------------------------------------------------------------------

const MEANINGS = {
  get: t("An ordinary request, so that ports, cookies and proxies are as for any page."),
  "http/1.1": t("Agreed. What follows are frames."),
  upgrade: t("Let us speak another protocol."),
  connection: t("This header is for the next hop only, which may be a proxy."),
  "sec-websocket-key": t("16 random bytes, in base64."),
  "sec-websocket-version": t("13 is that of RFC 6455."),
  "sec-websocket-extensions": t("Compression, if both want it."),
  "sec-websocket-accept": t("The answer to the key."),
  origin: t("Which page opens it. The server must look: any page may try."),
  cookie: t("Comes along, as for any request. Not shown here: it says who you are."),
  host: t("Which of its names the server is asked by."),
};

function showLines(list, lines) {
  list.replaceChildren(...lines.map((line) => {
    const meaning = MEANINGS[line.split(/[: ]/)[0].toLowerCase()];
    return el("li", {}, el("code", {}, line), ...(meaning ? [el("span", {}, meaning)] : []));
  }));
}

chat.on("opened", async ({ request, answer, nonce, sha1, accept }) => {
  showLines(byId("request"), request);
  showLines(byId("answer"), answer);
  const steps = [
    [t("The key, as the browser has sent it"), nonce],
    [t("A text that RFC 6455 has made up is put behind it"), nonce + guid],
    [t("SHA-1 of that: 20 bytes, here in hex"), sha1.replace(/..(?=.)/g, "$& ")],
    [t("These bytes in base64 are the answer"), accept],
  ];
  byId("steps").replaceChildren(...steps.map(([name, value]) => el("li", {}, el("span", {}, name), el("code", {}, value))));
  if (!crypto.subtle) {
    byId("agreed").textContent = t("The server has computed this. Your browser could not: over plain HTTP it gives pages no SHA-1, except on the same machine.");
    return;
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-1", new TextEncoder().encode(nonce + guid)));
  const agrees = hexOf(digest) === sha1 && btoa(String.fromCharCode(...digest)) === accept;
  byId("agreed").textContent = agrees
    ? t("✓ Your browser has computed the same just now.")
    : t("✗ Your browser comes to something else.");
});

// ---- closing -------------------------------------------------------------------------

const WAYS = {
  browser: [t("Browser"), t("{code} by the browser")],
  server: [t("Server"), t("{code} by the server")],
  cut: [t("Cut"), t("{code}: cut the connection")],
  hand: [t("By hand"), t("{code} by hand")],
};

for (const item of byId("codes").children) {
  const { code, who } = item.dataset;
  const buttons = who.split(" ").map((by) => {
    const [short, long] = WAYS[by];
    const button = el("button", { type: "button", className: "quiet", ariaLabel: long.replace("{code}", code) }, short);
    button.addEventListener("click", () => end(by, Number(code)));
    return button;
  });
  item.append(el("p", { className: "who" }, ...buttons));
}

async function end(by, code) {
  if (by === "hand") {
    sendByHand([closeFrame(code)], t("The frames are shown above, under “By hand”."), byId("closing"));
    return;
  }
  await opened();
  closedBy = by;
  if (by === "browser") close(code, t("Bye"));
  else send(by === "server" ? `close ${code}` : "cut");
}

// It is opened once its page is sure to be told.
let first = true;
chat.join(`${byId("protocol").dataset.user} ${page}`, {
  onReset() {
    if (first) connect();
    first = false;
  },
});
