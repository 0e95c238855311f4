import { byId, el, inFrame, showStatus, t, whole } from "./ui.js";

const SHOWN = 100; // questions with their answers
const SILENCE = 4000; // milliseconds without a word, until the page wonders

const chat = new WSChat(byId("talk").dataset.socket);
const asks = new Map(); // mid of a question -> what is shown of it
const changed = new Set(); // of these, until the next frame
const draw = inFrame(drawAll);
showStatus(chat);

const room = chat.join("bot", {
  onReset(messages) {
    // What grew here is not thrown away: its end is told, or that there will be none.
    const known = new Set(messages.map(({ mid }) => mid));
    for (const [mid, { growing }] of [...asks]) {
      if (growing) continue;
      if (!known.has(mid)) note(t("The server does not know earlier answers any more."));
      remove(mid);
    }
    messages.forEach(show);
    draw();
  },
  onMessage: show,
  onStream({ id, text }) {
    const ask = askOf(id.slice(3));
    Object.assign(ask, { answer: text, growing: true, lost: undefined });
    wonder(ask);
  },
  onDiscard(id, reason) {
    const ask = asks.get(id.slice(3));
    if (ask) end(ask, { lost: reason });
  },
  onPresence: (present) => (byId("online").textContent = present.length),
});

function show({ mid, from, data }) {
  if (from === "bot") end(askOf(mid.slice(3)), { answer: data, lost: undefined });
  else if (data?.question) Object.assign(askOf(mid), data);
}

function end(ask, outcome) {
  const mine = ask.growing && isMine(ask);
  clearTimeout(ask.wondering);
  Object.assign(ask, outcome, { growing: false, silent: false });
  changed.add(ask);
  draw();
  if (mine) byId("said").textContent = ask.lost === undefined ? ask.answer : lostWords(ask);
}

/** What is shown of a question; its answer may be known first. */
function askOf(mid) {
  if (!asks.has(mid)) {
    const text = document.createTextNode("");
    const node = el("li", {},
      el("p", { className: "from" }),
      el("p", { className: "question", dir: "auto" }),
      el("p", { className: "answer", dir: "auto" }, text),
      el("p", { className: "fate" }));
    asks.set(mid, { mid, node, text, question: "", answer: "", by: undefined });
    const following = atEnd();
    byId("talk").append(node);
    while (asks.size > SHOWN) remove(asks.keys().next().value);
    if (following) toEnd();
  }
  const ask = asks.get(mid);
  changed.add(ask);
  draw();
  return ask;
}

function remove(mid) {
  const { node } = asks.get(mid);
  if (node.contains(document.activeElement)) byId("question").focus();
  node.remove();
  asks.delete(mid);
}

const isMine = ({ by }) => by !== undefined && by === chat.hello?.user;

/** Say so where nothing comes any more, though the connection is there. */
function wonder(ask) {
  clearTimeout(ask.wondering);
  ask.silent = false;
  ask.wondering = setTimeout(() => {
    ask.silent = chat.state === "open";
    changed.add(ask);
    draw();
  }, SILENCE);
}

function lostWords({ lost }) {
  if (lost === "stopped") return t("Stopped before its first word.");
  return t("Nothing came of it: the process that wrote it has ended. Please ask again.");
}

function fateOf(ask) {
  if (ask.silent) return t("Nothing more comes just now. If the process that writes it has ended, that is known within 45 seconds.");
  if (ask.growing) return "";
  if (ask.lost !== undefined) return lostWords(ask);
  return ask.answer ? "" : t("There is no answer to this.");
}

function drawAll() {
  const following = atEnd();
  for (const ask of changed) drawOne(ask);
  changed.clear();
  byId("examples").hidden = asks.size > 0;
  if (following) toEnd();
}

function drawOne(ask) {
  const { node, text, answer } = ask;
  const [from, question, body, fate] = node.children;
  from.textContent = isMine(ask) ? t("You asked") : t("Somebody asked");
  node.classList.toggle("mine", isMine(ask));
  question.textContent = ask.question;
  // Where it only grows, what somebody has marked to copy stays marked.
  if (answer.startsWith(text.data)) text.appendData(answer.slice(text.data.length));
  else text.data = answer;
  body.ariaBusy = String(Boolean(ask.growing));
  fate.textContent = fateOf(ask);
  showStop(ask);
}

function showStop(ask) {
  if (ask.growing && isMine(ask)) {
    if (ask.stop) return;
    const onclick = () => {
      const sorry = (error) => error.code !== "unknown_stream" && note(t(error.message));
      room.stop(`re-${ask.mid}`).catch(sorry);
    };
    ask.stop = el("button", { type: "button", className: "quiet stop", onclick }, t("Stop"));
    ask.node.append(ask.stop);
    byId("said").textContent = t("The bot writes its answer.");
  } else if (ask.stop) {
    if (ask.stop === document.activeElement) byId("question").focus();
    ask.stop.remove();
    ask.stop = undefined;
  }
}

// ---- the end of the page: who reads it goes on reading it ----------------------------

const atEnd = () =>
  byId("talk").getBoundingClientRect().bottom < byId("ask").getBoundingClientRect().top + 80;

const toEnd = () => byId("talk").lastElementChild?.scrollIntoView({ block: "end" });

// ---- asking --------------------------------------------------------------------------

const field = byId("question");
const note = (text) => (byId("note").textContent = text);
let asking = false;

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = field.value;
  if (asking || !question.trim()) return;
  asking = true; // a double click asks once
  note(chat.state === "open" ? "" : t("There is no connection now. Your question is sent when it is back."));
  try {
    await chat.request("ask", { question: whole(question) });
    if (field.value === question) field.value = "";
    note("");
    toEnd();
  } catch (error) {
    const seconds = Math.ceil(error.retryAfter);
    note({
      rate_limited: t("Three questions at once, then one in five seconds. Please ask again in {n} s.", { n: seconds }),
      disconnected: t("The connection was lost. If your question is not shown, please ask again."),
      timeout: t("The server did not answer. If your question is not shown, please ask again."),
      unavailable: t("The demo's storage cannot be reached. Please try again soon."),
    }[error.code] ?? t(error.message));
  } finally {
    asking = false;
  }
});

field.addEventListener("keydown", (event) => {
  // It ends a word of an input method, and asks nothing.
  if (event.key === "Enter" && (event.isComposing || event.keyCode === 229)) event.preventDefault();
});

byId("examples").addEventListener("click", ({ target }) => {
  if (!target.matches("button")) return;
  field.value = target.textContent;
  byId("ask").requestSubmit();
  field.focus();
});
