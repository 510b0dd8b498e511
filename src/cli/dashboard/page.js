// Shows what data.json says, again and again. Names and messages are put into the page as text, never as markup.
"use strict";

const EVERY = 2000;
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function bytes(number) {
  if (number < 1024) return `${Math.round(number)} B`;
  let value = number / 1024, unit = 0;
  while (value >= 1023.95 && unit < 4) { value /= 1024; unit += 1; }
  return `${value.toFixed(value < 99.95 ? 1 : 0)} ${["kB", "MB", "GB", "TB", "PB"][unit]}`;
}

function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function seconds(number) {
  if (number < 1) return `${Math.round(number * 1000)} ms`;
  const whole = Math.round(number);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

/** Rates between neighbouring samples of a counter. */
function rates(history, column) {
  const points = [];
  for (let i = 1; i < history.at.length; i += 1) {
    const passed = history.at[i] - history.at[i - 1];
    if (passed > 0) points.push([history.at[i], Math.max(0, history[column][i] - history[column][i - 1]) / passed]);
  }
  return points;
}

/** The mean of the last few points. */
function recent(points, many = 5) {
  const last = points.slice(-many);
  return last.length ? last.reduce((sum, point) => sum + point[1], 0) / last.length : 0;
}

const CHARTS = [
  { id: "copied", title: "Rows copied", text: (value) => `${bytes(value)}/s`, points: (history) => rates(history, "bytes") },
  { id: "applied", title: "Changes applied", text: (value) => `${Math.round(value).toLocaleString("en")}/s`,
    points: (history) => rates(history, "changes") },
  { id: "lag", title: "Behind the source", text: bytes,
    points: (history) => history.at.map((time, i) => [time, history.lag_bytes[i]]).filter((point) => point[1] !== null) },
];

function clock(date) {
  return date.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function chart({ id, title, text, points }, history) {
  const all = points(history);
  const now = id === "lag" ? (all.length ? all[all.length - 1][1] : null) : recent(all);
  const most = Math.max(...all.map((point) => point[1]), 0);
  const said = now === null ? "no source is followed" : `${text(now)} now, ${text(most)} at most`;
  const box = svg("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${said}` });
  for (const y of [0, 50, 100]) box.append(svg("line", { class: "rule", x1: 0, x2: 600, y1: y, y2: y }));
  if (all.length > 1) {
    const [first, last] = [all[0][0], all[all.length - 1][0]];
    const path = all.map(([time, value]) => {
      const x = (time - first) / (last - first) * 600;
      return `${x.toFixed(1)},${(100 - (most ? value / most * 100 : 0)).toFixed(1)}`;
    });
    box.append(svg("polygon", { class: "area", points: `0,100 ${path.join(" ")} 600,100` }));
    box.append(svg("polyline", { class: "curve", points: path.join(" ") }));
  }
  const [from, to] = all.length > 1 ? [all[0], all[all.length - 1]].map((point) => clock(new Date(point[0] * 1000))) : ["", ""];
  return element("figure", {},
    element("figcaption", {}, element("strong", {}, title), element("span", { class: "quiet" }, said)),
    box, element("div", { class: "axis", "aria-hidden": "true" }, element("span", {}, from), element("span", {}, to)));
}

/** The word for a database: what its state says, unless the run says that it has ended. */
function word(database) {
  if (database.error) return "failed";
  if (database.state && database.state.status === "done") return "done";
  if (database.ended) return "done";
  return database.state && database.state.status === "syncing" ? "syncing" : "running";
}

/** How much of the rows is there, in percent; the size that it is measured by was only an estimate. */
function percent(databases) {
  const sum = (key) => databases.reduce((total, database) => total + database[key], 0);
  if (sum("parts") > 0 && sum("parts_done") === sum("parts")) return 100;
  return sum("bytes") > 0 ? Math.min(99, Math.floor(sum("bytes_done") / sum("bytes") * 100)) : 0;
}

function tables(database, state) {
  const rows = state.relations.map((table) => {
    const name = `${table.schema}.${table.name}`;
    const copying = database.active.includes(`copy ${name}`);
    const done = table.parts_done === table.parts;
    const kind = done ? "done" : copying ? "copying" : "waiting";
    const share = done ? "done" : `${kind}${table.parts > 1 ? `, ${table.parts_done} of ${table.parts} parts` : ""}`;
    return element("tr", { class: kind }, element("td", {}, name), element("td", { class: "state" }, share),
      element("td", { class: "number" }, (done ? table.rows_done : Math.max(table.rows_estimate, table.rows_done)).toLocaleString("en")),
      element("td", { class: "number wide" }, bytes(table.bytes)));
  });
  const more = state.tables - state.relations.length;
  const head = element("tr", {}, element("th", { scope: "col" }, "table"), element("th", { scope: "col" }, "state"),
    element("th", { scope: "col", class: "number" }, "rows"), element("th", { scope: "col", class: "number wide" }, "size"));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `tables of ${database.name}` },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)),
    more > 0 ? element("p", { class: "quiet" }, `and ${count(more, "table", "tables")} more`) : null);
}

function slot(state) {
  const slot = state.slot;
  if (!slot) return null;
  if (slot.exists === null) return `slot ${slot.name}: nothing is known of the source`;
  if (!slot.exists) return `slot ${slot.name} is not on the source`;
  const parts = [slot.active ? "read" : "read by nobody"];
  if (slot.retained_bytes !== null) parts.push(`keeps ${bytes(slot.retained_bytes)} of log`);
  if (slot.wal_status !== null) parts.push(slot.wal_status);
  if (slot.invalidation_reason !== null) parts.push(`of no more use: ${slot.invalidation_reason}`);
  return `slot ${slot.name}: ${parts.join(", ")}`;
}

/** A database's card, kept from one look to the next so that what was opened stays open. */
const cards = new Map();

function card(database, alone) {
  let known = cards.get(database.name);
  if (!known) {
    const details = element("details", {}, element("summary", {}, "tables"), element("div", {}));
    if (alone) details.open = true;
    known = { body: element("div", {}), details };
    known.box = element("article", { class: "database" }, known.body, details);
    cards.set(database.name, known);
  }
  const state = database.state;
  const kind = word(database);
  const facts = [];
  if (database.parts > 0) {
    facts.push(`${bytes(database.bytes_done)} of ${bytes(Math.max(database.bytes, database.bytes_done))}`,
      `${database.parts_done} of ${count(database.parts, "part", "parts")}`);
  }
  if (state) facts.push(`${state.tables_done} of ${count(state.tables, "table", "tables")}`);
  if (database.items > 0) facts.push(`${database.items_done} of ${count(database.items, "object", "objects")} made`);
  if (database.lag_bytes !== null) {
    const behind = state && typeof state.lag_seconds === "number" ? `, ${seconds(state.lag_seconds)}` : "";
    facts.push(`${bytes(database.lag_bytes)} behind${behind}`, `${count(database.transactions, "transaction", "transactions")} applied`);
  }
  if (state && slot(state)) facts.push(slot(state));
  const notes = [];
  const note = (name, text) => notes.push(element("li", { class: name }, text));
  if (database.error) note("error", database.error);
  if (state) {
    for (const warning of state.warnings || []) note("warning", warning);
    for (const reason of state.fallback) note("quiet", `copied, not followed: ${reason}`);
    for (const left of state.not_copied) note("warning", `not copied: ${left.kind} ${left.name}: ${left.reason}`);
  }
  if (database.conflicts > 0) note("warning", `${count(database.conflicts, "change", "changes")} found no row and were left out`);
  for (const build of database.building) note("quiet", build);
  for (const active of database.active.filter((name) => !name.startsWith("copy "))) note("quiet", active);
  const moved = database.source === database.name ? null : element("span", { class: "quiet" }, `from ${database.source}`);
  const share = percent([database]);
  known.body.replaceChildren(
    element("div", { class: "head" }, element("h3", {}, database.name), moved, element("span", { class: `badge ${kind}` }, kind),
      element("span", {}, [state ? state.method : null, database.phase].filter(Boolean).join(": "))),
    ...(database.parts > 0 ? [element("progress", { max: "100", value: share, "aria-label": `rows of ${database.name}: ${share} %` })] : []),
    element("div", { class: "facts quiet" }, ...facts.map((fact) => element("span", {}, fact))),
    element("ul", { class: "notes" }, ...notes));
  known.details.hidden = !state || state.relations.length === 0;
  if (!known.details.hidden) {
    known.details.firstChild.textContent = `${state.tables_done} of ${count(state.tables, "table", "tables")}`;
    const box = known.details.lastChild;
    const scrolled = box.firstChild ? box.firstChild.scrollTop : 0;
    box.replaceChildren(tables(database, state));
    box.firstChild.scrollTop = scrolled;
  }
  return known.box;
}

function numbers(data) {
  const sum = (key) => data.databases.reduce((total, database) => total + database[key], 0);
  const [done, all] = [sum("bytes_done"), sum("bytes")];
  const rate = recent(rates(data.history, "bytes"));
  const lags = data.databases.map((database) => database.lag_bytes).filter((lag) => lag !== null);
  const ended = data.databases.filter((database) => database.ended).length;
  const left = rate >= 1 && done < all ? `about ${seconds((all - done) / rate)} left` : "";
  const tiles = [
    ["rows copied", all > 0 ? `${percent(data.databases)} %` : "–", all > 0 ? `${bytes(done)} of ${bytes(Math.max(all, done))}` : ""],
    ["copying", `${bytes(rate)}/s`, left],
    ["applying", `${Math.round(recent(rates(data.history, "changes"))).toLocaleString("en")}/s`, `${count(sum("changes"), "change", "changes")}`],
    ["behind the source", lags.length ? bytes(Math.max(...lags)) : "–", lags.length ? "of its log" : "no source is followed"],
    ["warnings", data.warnings.toLocaleString("en"), ""],
  ];
  if (data.databases.length > 1) tiles.unshift(["databases", `${ended} of ${data.databases.length}`, "done with"]);
  return tiles.map(([name, value, more]) => element("div", {}, element("dt", {}, name),
    element("dd", {}, value, element("small", {}, more))));
}

function message(entry) {
  const line = element("li", { class: entry.level },
    element("time", { datetime: entry.time }, clock(new Date(entry.time))), " ",
    ["error", "warning", "hint"].includes(entry.level) ? element("b", {}, `${entry.level}: `) : null,
    `${entry.database ? `${entry.database}: ` : ""}${entry.message}`);
  for (const key of ["detail", "hint"]) {
    for (const text of (entry[key] || "").split("\n").filter(Boolean)) {
      line.append(element("span", { class: "more" }, `${key}: ${text}`));
    }
  }
  return line;
}

function overall(data) {
  const words = data.databases.map(word);
  return ["failed", "running", "syncing"].find((one) => words.includes(one)) || "done";
}

let messages = "";

function show(data) {
  const state = overall(data);
  const phase = data.databases.length === 1 ? data.databases[0].phase || data.phase : data.phase;
  at("badge").textContent = state;
  at("badge").className = `badge ${state}`;
  // Read aloud only when it changes.
  if (at("phase").textContent !== phase) at("phase").textContent = phase;
  at("migration-id").textContent = data.migration_id || "";
  at("elapsed").textContent = `for ${seconds(data.elapsed_seconds)}`;
  at("version").textContent = `pgstream ${data.version}`;
  document.title = `${state}: ${data.migration_id || data.databases.map((database) => database.name).slice(0, 3).join(", ")} – pgstream`;
  at("numbers").replaceChildren(...numbers(data));
  at("charts").replaceChildren(...CHARTS.map((one) => chart(one, data.history)));
  at("databases").replaceChildren(...data.databases.map((database) => card(database, data.databases.length === 1)));
  const seen = JSON.stringify(data.log);
  if (seen !== messages) {
    messages = seen;
    const log = at("log");
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
    log.replaceChildren(...data.log.map(message));
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}

let last = null;

async function look() {
  try {
    const answer = await fetch("data.json", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    last = new Date();
    at("lost").hidden = true;
  } catch {
    at("lost").textContent = `No answer: the run has ended, or the way to it is broken. ${last ? `This is how it was at ${clock(last)}.` : ""}`;
    at("lost").hidden = false;
  }
  setTimeout(look, EVERY);
}

look();
