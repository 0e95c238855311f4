/** The small charts, drawn as SVG; each says in words what it shows. */

export const SPAN = 120; // points: two minutes

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;
const EDGE = 7; // to the right of the newest point: corners are round
const FOOT = 7; // below what is 0
const compact = new Intl.NumberFormat("en", { notation: "compact", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const count = (value) => (value >= 1e6 ? compact : whole).format(value);
const rate = (value) => (value < 10 ? tenths.format(value) : count(value));

const thousands = (value, units) => {
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${(value < 10 && unit ? tenths : whole).format(value)} ${units[unit]}`;
};
const bytes = (value) => thousands(value, ["B", "kB", "MB", "GB"]);
const time = (value) => (value >= 1 ? `${tenths.format(value)} s` : `${rate(value * 1000)} ms`);

const known = (format) => (value) => (isNumber(value) ? format(value) : "–");
export const formats = {
  count: known(count),
  rate: known(rate),
  bytes: known(bytes),
  time: known(time),
};

/** Seconds as people say them. */
export function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** The next of 1, 2, 5, 10, 20 …: a scale that does not tremble. */
function ceiling(value, least) {
  const step = 10 ** Math.floor(Math.log10(Math.max(value, least)));
  return [1, 2, 5, 10].map((n) => n * step).find((top) => top >= Math.max(value, least));
}

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A figure: its name, how it stands, and how it went. */
export class Chart {
  constructor({ key, name, format, unit = "", least = 1, events = false }) {
    Object.assign(this, { key, name, least, format: formats[format], unit, events });
    const ids = { title: `${key}-title`, desc: `${key}-desc` };
    this.now = element("span", { className: "now" });
    this.span = element("span", { className: "span" });
    this.desc = drawing("desc", { id: ids.desc });
    this.area = drawing("path", { class: "area" });
    this.line = drawing("path", { class: "line" });
    this.dot = drawing("path", { class: "dot" });
    const base = drawing("path", { class: "base", d: `M0 ${HEIGHT}H${SPAN}` });
    const svg = drawing(
      "svg",
      { viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      drawing("title", { id: ids.title }, `${name}, the last two minutes`),
      this.desc, base, this.area, this.line, this.dot,
    );
    svg.setAttribute("aria-labelledby", ids.title);
    svg.setAttribute("aria-describedby", ids.desc);
    this.node = element("div", { className: "tile" },
      element("h2", { textContent: name }), element("p", {}, this.now, this.span), svg);
    this.node.dataset.figure = key;
  }

  /** `points`: the newest last, at most SPAN of them; null is a gap. */
  draw(points) {
    const { format, unit } = this;
    const numbers = points.filter(isNumber);
    const last = points.at(-1);
    const [low, high] = numbers.length ? [Math.min(...numbers), Math.max(...numbers)] : [];
    const all = numbers.length ? Math.round(numbers.reduce((sum, value) => sum + value, 0)) : undefined;
    const now = format(this.events ? all : last);
    this.now.replaceChildren(now, ...(unit && now !== "–" ? [element("small", { textContent: ` ${unit}` })] : []));
    this.node.toggleAttribute("data-alarm", this.events && all > 0);
    this.span.textContent = numbers.length && !this.events ? `peak ${format(high)}` : "";
    this.desc.textContent = !numbers.length
      ? "Nothing is known yet."
      : this.events
        ? `${now} in two minutes.`
        : `Now ${now}${unit && ` ${unit}`}; lowest ${format(low)}, highest ${format(high)}.`;
    const top = ceiling(high ?? 0, this.least);
    const x = (n) => SPAN - EDGE - points.length + 1 + n;
    const y = (value) => (HEIGHT - FOOT - (value / top) * (HEIGHT - FOOT - 4)).toFixed(1);
    let line = "", area = "", from;
    points.forEach((value, n) => {
      if (!isNumber(value)) {
        if (from !== undefined) area += `V${HEIGHT}H${from}Z`;
        from = undefined;
        return;
      }
      line += from === undefined ? `M${x(n)} ${y(value)}h0` : `L${x(n)} ${y(value)}`;
      area += from === undefined ? `M${x(n)} ${HEIGHT}V${y(value)}` : `L${x(n)} ${y(value)}`;
      from ??= x(n);
    });
    if (from !== undefined) area += `V${HEIGHT}H${from}Z`;
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    this.dot.setAttribute("d", isNumber(last) ? `M${SPAN - EDGE} ${y(last)}h0` : "");
  }
}
