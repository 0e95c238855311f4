/** The dashboard: its socket, the figures that come over it, and the workers. */

import { Chart, SPAN, duration, element, formats } from "./dashboard-charts.js";
import { people } from "./dashboard-people.js";

const GONE = 10_000; // ms: so long a worker that is gone is still shown
const PATIENCE = 2_000; // ms after it opened, in which not all workers have been heard yet
const SILENT = 4_000; // ms without figures after which that is said
const $ = (id) => document.getElementById(id);

const sum = (values) => values.reduce((all, value) => all + value, 0);
const highest = (values) => Math.max(...values);

// What is shown of each worker. `per`: of a counter, the change in a second; `events`: of
// one that should stand still, the changes drawn, and how many there were told. `of`: what
// those of several workers come to, as in `chat.stats(everywhere=True)`.
const FIGURES = [
  { key: "connections", name: "Connections", format: "count", least: 5 },
  { key: "messages_in", name: "Messages in", short: "In/s", per: true, format: "rate", unit: "/s", least: 2 },
  { key: "messages_out", name: "Messages out", short: "Out/s", per: true, format: "rate", unit: "/s", least: 2 },
  { key: "deliveries", name: "Deliveries", short: "Delivered/s", per: true, format: "rate", unit: "/s", least: 2 },
  { key: "queued_bytes", name: "Queued", format: "bytes", least: 1000 },
  { key: "slow_closes", name: "Slow closes", events: true, format: "count", unit: "in 2 min" },
  { key: "refused", name: "Refused", events: true, format: "count", unit: "in 2 min" },
  { key: "errors", name: "Errors", events: true, format: "count", unit: "in 2 min" },
  { key: "backend_latency", name: "Backend latency", short: "Latency", format: "time", least: 0.002, of: highest },
  { key: "loop_lag", name: "Loop lag", short: "Lag", format: "time", least: 0.002, of: highest },
];

const { compare } = new Intl.Collator("en", { numeric: true });
const byName = (one, other) => compare(one.row.worker, other.row.worker);
const charts = FIGURES.map((figure) => new Chart(figure));
// id -> { row, shown: in the table, drawn: in the charts, history, began, gone, node }
const workers = new Map();
const total = { history: {}, shown: {}, drawn: {} };
let columns = [];
let opened = 0;
let told = Infinity; // Date.now() of the newest figures, which goes on while a machine sleeps
let paused = false;
let silence;

// ---- the figures ----

function remember(history, drawn) {
  for (const { key } of FIGURES) {
    const points = (history[key] ??= []);
    points.push(drawn?.[key] ?? null);
    if (points.length > SPAN) points.shift();
  }
}

function read(values) {
  const row = Object.fromEntries(columns.map((name, n) => [name, values[n]]));
  let known = workers.get(row.id);
  if (!known || row.uptime < known.row.uptime) {
    const began = known?.began ?? performance.now();
    known = { ...known, history: known?.history ?? {}, shown: {}, drawn: {}, row: undefined, began };
    workers.set(row.id, known);
  }
  const before = known.row;
  const seconds = before ? row.uptime - before.uptime : 0;
  for (const { key, per, events } of FIGURES) {
    if (!per) known.shown[key] = row[key];
    if (!per && !events) known.drawn[key] = row[key];
    else if (seconds > 0) {
      const more = Math.max(0, row[key] - before[key]);
      known.drawn[key] = per ? more / seconds : seconds < SPAN ? more : null;
      if (per) known.shown[key] = known.drawn[key];
    } else if (events && before) known.drawn[key] = 0; // told before
  }
  known.row = row;
  known.gone = undefined;
  return row.id;
}

function receive({ workers: rows }) {
  const now = performance.now();
  leaveOut();
  const here = new Set(rows.map(read));
  const lost = [];
  for (const [id, known] of workers) {
    if (here.has(id)) continue;
    if (!known.gone) {
      if (now - opened < PATIENCE) continue; // perhaps it is only not heard yet
      known.gone = now;
      lost.push(known.row.worker);
    } else if (now - known.gone > GONE) {
      workers.delete(id);
      known.node?.remove();
    }
  }
  if (lost.length) say(lost.length > 1 ? `${lost.length} workers are gone.` : `Worker ${lost[0]} is gone.`);
  const alive = [...workers.values()].filter(({ gone }) => !gone);
  for (const { key, of = sum } of FIGURES) {
    for (const what of ["shown", "drawn"]) {
      const values = alive.map((known) => known[what][key]).filter((value) => typeof value === "number");
      total[what][key] = values.length ? of(values) : null;
    }
  }
  remember(total.history, total.drawn);
  for (const { history, drawn, gone } of workers.values()) remember(history, gone ? null : drawn);
  draw();
}

/** Seconds in which nothing came are as wide as others, and empty. */
function leaveOut() {
  const missed = Math.round((Date.now() - told) / 1000) - 1;
  if (missed > 1) for (let n = 0; n < Math.min(missed, SPAN); n++) breakOff();
  told = Date.now();
}

/** Nothing came for a while: no line may be drawn over that. */
function breakOff() {
  for (const { history } of [total, ...workers.values()]) remember(history, null);
}

// ---- what is seen ----

const row = (name) => {
  const tags = element("span");
  const node = element("tr", {}, element("th", { scope: "row" }, name, " ", tags));
  for (let n = 0; n <= FIGURES.length; n++) node.append(element("td"));
  return node;
};

function fill(node, uptime, shown, tags) {
  const texts = [uptime, ...FIGURES.map(({ key, format }) => formats[format](shown?.[key]))];
  texts.forEach((text, n) => {
    const cell = node.children[n + 1];
    if (cell.textContent !== text) cell.textContent = text;
  });
  const holder = node.firstChild.lastChild;
  if (holder.dataset.tags === String(tags)) return;
  holder.dataset.tags = String(tags);
  holder.replaceChildren(...tags.map(([kind, words]) => {
    const tag = element("span", { className: "tag", textContent: words });
    tag.dataset.kind = kind;
    return tag;
  }));
}

function draw() {
  const body = $("workers").tBodies[0];
  const now = performance.now();
  total.node ??= body.appendChild(row("All"));
  total.node.className = "total";
  fill(total.node, "", total.shown, []);
  [...workers.values()].sort(byName).forEach((known, n) => {
    const { gone, began } = known;
    known.node ??= row(known.row.worker);
    if (body.rows[n + 1] !== known.node) body.insertBefore(known.node, body.rows[n + 1] ?? null);
    known.node.className = gone ? "gone" : "";
    const tags = [];
    if (gone) tags.push(["gone", "gone"]);
    else if (known.row.backend_up === false) tags.push(["down", "no storage"]);
    else if (opened && began - opened > PATIENCE && now - began < GONE) tags.push(["new", "new"]);
    fill(known.node, gone ? "–" : duration(known.row.uptime), gone ? {} : known.shown, tags);
  });
  const alive = [...workers.values()].filter(({ gone }) => !gone).length;
  const hint = workers.size ? `${alive} ${alive === 1 ? "worker" : "workers"}` : "Waiting for figures";
  if ($("workers-hint").textContent !== hint) $("workers-hint").textContent = hint;
  choices();
  const { history } = workers.get($("scope").value) ?? total;
  for (const chart of charts) chart.draw(history[chart.key] ?? []);
}

function choices() {
  const select = $("scope");
  const known = [...workers].sort(([, one], [, other]) => byName(one, other));
  const shown = [...select.options].slice(1).map(({ value }) => value);
  if (String(known.map(([id]) => id)) === String(shown)) return;
  const chosen = select.value;
  while (select.options.length > 1) select.remove(1);
  for (const [id, { row }] of known) select.add(new Option(row.worker, id));
  select.value = workers.has(chosen) ? chosen : "";
}

function say(words) {
  $("news").textContent = words;
}

function status(state, words) {
  const node = $("status");
  if (node.textContent !== words) node.textContent = words;
  node.dataset.state = state;
  document.body.toggleAttribute("data-stale", state !== "open");
}

// ---- the socket ----

// An application's own headers may have replaced those that say so.
if (self !== top) {
  status("closed", "This page works in no frame: open it by itself.");
  throw new Error("the dashboard is in a frame");
}

const { socket: path, origin } = document.documentElement.dataset;
// Pages of elsewhere get no socket, and behind a proxy this one seems to be one.
const away = new URL(origin).origin === location.origin
  ? "No connection, trying again…"
  : `No connection: the server believes to be ${origin}. Behind a proxy it needs ProxyFix: see flask wschat doctor`;
const socket = new WSChat(path);

/** Figures come while the page is seen, and nobody has stopped them. */
async function want() {
  if (socket.state !== "open") return;
  const wanted = !paused && !document.hidden;
  if (wanted) heard();
  else status("paused", "Paused");
  try {
    const { result } = await socket.request(wanted ? "watch" : "pause");
    if (result) ({ columns } = result);
  } catch (error) {
    if (error.code !== "disconnected") lacking(`No figures come: ${error.message}`);
  }
}

socket.on("figures", (message) => {
  if (!columns.length || paused) return;
  heard();
  if (message.fault) return lacking(`The storage cannot be asked: ${message.fault}. Figures come again when it answers`);
  receive(message);
  status("open", "Live");
});

/** Where no figures come, say so and ask for them again. */
function heard() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    if (socket.state !== "open" || paused || document.hidden) return;
    lacking("No figures come just now, asking again…");
    want();
  }, SILENT);
}

function lacking(words) {
  opened = performance.now(); // none of the workers is gone for that
  breakOff();
  status("lacking", words);
}

socket.onState(({ state, code, reason }) => {
  if (state === "open") {
    opened = performance.now();
    breakOff();
    want();
  } else if (state === "closed") {
    const refused = code === 1008 || code === 401 || code === 403;
    const kicked = `You were disconnected${reason && `: ${reason}`}`;
    const why = refused ? "You may not see this any more" : code === 4000 ? kicked : reason;
    document.body.toggleAttribute("data-refused", refused);
    if (refused) $("dialog").close();
    status("closed", `${why || "Closed"}. Reload the page to try again.`);
  } else status(state, state === "connecting" ? "Connecting…" : away);
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) breakOff();
  want();
});

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  if (!paused) breakOff();
  want();
});
$("scope").addEventListener("change", draw);

$("tiles").append(...charts.map(({ node }) => node));
for (const name of ["Worker", "Up", ...FIGURES.map(({ name, short = name }) => short)]) {
  $("workers").tHead.rows[0].append(element("th", { scope: "col", textContent: name }));
}
draw();
people(socket, () => paused);
