"use strict";
// The table of disagreements: filter, search, sort, open. Text from the data only ever becomes textContent.
(() => {
  const PAGE = 50;
  const SLICE_MS = 30; // longest stretch of work before the page may react to the reader again
  const DEBOUNCE_MS = 120;
  const CONTRADICTS = 1;
  const ONE_TIED = 2;
  const ORDER = 4;
  const KINDS = [
    [0, "All disagreements"],
    [CONTRADICTS, "Judge contradicts people"],
    [ONE_TIED, "Only one calls a tie"],
    [ORDER, "Verdict changes with the order"],
  ];
  const VERDICTS = { a: "A", b: "B", tie: "tie" };
  const VERDICT_PLACE = { a: 0, tie: 1, b: 2 };

  const byId = (id) => document.getElementById(id);
  const data = byId("index") ? JSON.parse(byId("index").textContent) : null;
  if (!data) return;

  // One row of texts a line; a line is parsed when its row is opened, or searched for the first time.
  const lines = byId("texts").textContent.split("\n").slice(1, -1);
  const textsOf = (row) => JSON.parse(lines[row.place].replace(/,$/, ""));

  const rows = data.rows.map((entry, place) => {
    const [id, kinds, human, votes, judge, prob, ab, ba, lengthA, lengthB, groups] = entry;
    const sure = prob === null ? 0.5 : Math.max(prob, 1 - prob);
    return { place, id, kinds, human, votes, judge, prob, ab, ba, lengthA, lengthB, groups, sure };
  });

  const element = (name, properties, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(properties || {})) {
      if (key === "class") node.className = value;
      else if (key.includes("-") || key === "role" || key === "scope") node.setAttribute(key, value);
      else node[key] = value;
    }
    for (const child of children) if (child !== null) node.append(child);
    return node;
  };
  const drawn = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const percent = (value) => {
    if (value === null) return "\u2013";
    const isExtreme = (value > 0 && value < 0.005) || (value > 0.995 && value < 1);
    return `${(100 * value).toFixed(isExtreme ? 1 : 0)}\u00a0%`;
  };
  const verdict = (value) => (value === null ? "\u2013" : VERDICTS[value]);
  const grouped = (value) => value.toLocaleString("en");

  // ------------------------------------------------------------------------------------------------ state

  const orNothing = (value, otherwise) => (value === null ? otherwise : value);
  const SORTS = [
    { key: "worst", label: "Worst first", of: (row) => row.place },
    { key: "id", label: "Id", of: (row) => row.id },
    ...data.columns.map((column, at) => ({ key: `group-${at}`, label: column, of: (row) => data.values[at][row.groups[at]] })),
    { key: "people", label: "People", of: (row) => orNothing(VERDICT_PLACE[row.human], 3) },
    { key: "judge", label: "Judge's P(A)", of: (row) => orNothing(row.prob, 2) },
    { key: "orders", label: "Gap between orders", of: (row) => (row.ab === null || row.ba === null ? -1 : Math.abs(row.ab - row.ba)) },
    { key: "length", label: "Length of A minus B", of: (row) => row.lengthA - row.lengthB },
  ];
  const state = { kind: 0, groups: data.columns.map(() => -1), least: 0.5, query: "", sort: "worst", falls: false, page: 0 };
  const open = new Set();
  let visibleRows = rows;

  // ----------------------------------------------------------------------------------------------- search

  let haystacks = [];
  let searching = 0;

  const haystackOf = (row) => {
    const texts = textsOf(row);
    const parts = [row.id, ...row.groups.map((value, at) => data.values[at][value]), texts.a, texts.b];
    for (const turn of texts.prompt) parts.push(turn[1]);
    for (const reason of texts.reasons) if (reason !== null) parts.push(reason);
    return parts.join("\n").toLowerCase();
  };

  // Reads the rows' texts a slice at a time, once, and then calls back.
  const prepare = (then) => {
    const mine = ++searching;
    const step = () => {
      if (mine !== searching) return;
      const until = performance.now() + SLICE_MS;
      while (haystacks.length < rows.length && performance.now() < until) haystacks.push(haystackOf(rows[haystacks.length]));
      if (haystacks.length < rows.length) {
        byId("status").textContent = `Reading ${grouped(haystacks.length)} of ${grouped(rows.length)} rows\u2026`;
        setTimeout(step, 0);
      } else then();
    };
    step();
  };

  // --------------------------------------------------------------------------------------------- filtering

  const matches = (row) =>
    (state.kind === 0 || (row.kinds & state.kind) !== 0) &&
    row.sure >= state.least - 1e-9 &&
    state.groups.every((value, at) => value < 0 || row.groups[at] === value) &&
    (state.query === "" || haystacks[row.place].includes(state.query));

  const sorted = (found) => {
    const { of, key } = SORTS.find((each) => each.key === state.sort);
    const sign = state.falls ? -1 : 1;
    if (key === "worst" && !state.falls) return found;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    return found
      .map((row) => [of(row), row])
      .sort((one, other) => sign * (typeof one[0] === "string" ? compare(one[0], other[0]) : one[0] - other[0]) || one[1].place - other[1].place)
      .map((pair) => pair[1]);
  };

  const apply = () => {
    visibleRows = sorted(rows.filter(matches));
    state.page = 0;
    show();
  };
  const update = () => {
    if (state.query !== "" && haystacks.length < rows.length) prepare(apply);
    else {
      searching += 1;
      apply();
    }
  };

  // ------------------------------------------------------------------------------------------------- table

  const COLUMNS = [
    { sort: "id", label: "Row" },
    ...data.columns.map((column, at) => ({ sort: `group-${at}`, label: column })),
    { sort: "people", label: "People" },
    { sort: "judge", label: "Judge" },
    { sort: "orders", label: "Orders" },
    { sort: "length", label: "Characters" },
  ];

  const header = () =>
    COLUMNS.map(({ sort, label }) => {
      const isSorted = state.sort === sort;
      const button = element("button", { type: "button", class: "sorter" }, label, element("span", { class: "arrow", "aria-hidden": "true" }, isSorted ? (state.falls ? "\u2193" : "\u2191") : "\u2195"));
      button.addEventListener("click", () => {
        if (!isSorted) Object.assign(state, { sort, falls: sort === "orders" });
        else if (state.falls === (sort === "orders")) state.falls = !state.falls;
        else Object.assign(state, { sort: "worst", falls: false });
        update();
        byId("head").children[COLUMNS.findIndex((each) => each.sort === sort)].firstChild.focus();
      });
      return element("th", { scope: "col", role: "columnheader", "aria-sort": isSorted ? (state.falls ? "descending" : "ascending") : "none" }, button);
    });

  // P(A) from 0 to 1: ticks for the two orders, a dot for their mean. The same is said in words beside it.
  const scale = (row) => {
    const svg = drawn("svg", { viewBox: "0 0 80 14", class: "scale", "aria-hidden": "true", focusable: "false" });
    const x = (value) => (4 + 72 * value).toFixed(1);
    svg.append(drawn("line", { x1: 4, x2: 76, y1: 7, y2: 7, class: "scale-line" }));
    svg.append(drawn("line", { x1: 40, x2: 40, y1: 3, y2: 11, class: "scale-line" }));
    if (row.ab !== null && row.ba !== null) svg.append(drawn("line", { x1: x(row.ab), x2: x(row.ba), y1: 7, y2: 7, class: "scale-gap" }));
    for (const value of [row.ab, row.ba]) if (value !== null) svg.append(drawn("line", { x1: x(value), x2: x(value), y1: 3.5, y2: 10.5, class: "scale-tick" }));
    if (row.prob !== null) svg.append(drawn("circle", { cx: x(row.prob), cy: 7, r: 3.4, class: "scale-dot" }));
    return svg;
  };

  const voted = (row) => (row.votes === null ? "" : `${row.votes[0]} A, ${row.votes[1]} tie, ${row.votes[2]} B`);
  const told = (row) => {
    const side = row.prob === null ? null : Math.max(row.prob, 1 - row.prob);
    return row.judge === null || row.judge === "tie" ? verdict(row.judge) : `${verdict(row.judge)}, ${percent(side)}`;
  };

  const shownRow = (row) => {
    const isOpen = open.has(row.place);
    const button = element("button", { type: "button", class: "opener", "aria-expanded": String(isOpen), "aria-controls": `detail-${row.place}` }, element("bdi", {}, row.id || "(no id)"));
    const cell = (label, ...children) => element("td", { role: "cell", "data-label": label }, ...children);
    const orders = row.ab === null && row.ba === null ? "\u2013" : `${percent(row.ab)} / ${percent(row.ba)}`;
    const line = element(
      "tr",
      { role: "row", class: isOpen ? "row open" : "row" },
      element("th", { scope: "row", role: "rowheader" }, button),
      ...row.groups.map((value, at) => cell(data.columns[at], element("bdi", {}, data.values[at][value]))),
      cell("People", element("strong", {}, verdict(row.human)), row.votes === null ? null : element("small", {}, voted(row))),
      cell("Judge", element("strong", {}, told(row)), row.kinds & ORDER ? element("small", {}, "changes with order") : null),
      cell("P(A) with A / B first", scale(row), element("small", {}, orders)),
      cell("Characters A / B", `${grouped(row.lengthA)} / ${grouped(row.lengthB)}`),
    );
    line.dataset.place = row.place;
    line.addEventListener("click", (event) => {
      if (event.target.closest("button") === null && String(getSelection()) !== "") return; // someone marks text
      toggle(row);
    });
    return isOpen ? [line, detail(row)] : [line];
  };

  const toggle = (row) => {
    const line = byId("body").querySelector(`tr.row[data-place="${row.place}"]`);
    const isOpen = !open.has(row.place);
    if (isOpen) {
      open.add(row.place);
      line.after(detail(row));
    } else {
      open.delete(row.place);
      line.nextElementSibling.remove();
    }
    line.classList.toggle("open", isOpen);
    line.querySelector("button").setAttribute("aria-expanded", String(isOpen));
  };

  const words = (text) =>
    text === "" ? element("p", { class: "words empty" }, "(empty)") : element("p", { class: "words", dir: "auto" }, text);
  const chip = (text, kind) => element("span", { class: `chip chip-${kind}` }, text);

  const response = (row, side, text, length) =>
    element(
      "section",
      { class: "response" },
      element(
        "h4",
        {},
        `Response ${VERDICTS[side]}`,
        row.human === side ? chip("People prefer this", "people") : null,
        row.judge === side ? chip("Judge prefers this", "judge") : null,
      ),
      words(text),
      element("p", { class: "quiet" }, `${grouped(length)} characters`),
    );

  const summary = (row) => {
    const people = row.human === null ? "No majority of people" : row.human === "tie" ? "People call it a tie" : `People prefer ${verdict(row.human)}`;
    const judge = row.judge === null ? "the judge gave no usable answer" : row.judge === "tie" ? "the judge calls it a tie" : `the judge prefers ${told(row)}`;
    const votes = row.votes === null ? "" : ` (${voted(row)})`;
    const shown = row.ab === null && row.ba === null ? "" : ` Its probability for A: ${percent(row.ab)} with A first, ${percent(row.ba)} with B first.`;
    return `${people}${votes}; ${judge}.${shown}`;
  };

  const detail = (row) => {
    const texts = textsOf(row);
    const reasons = ["With A shown first", "With B shown first"]
      .map((label, at) => [label, texts.reasons[at]])
      .filter((pair) => pair[1] !== null)
      .map(([label, text]) => element("section", { class: "response" }, element("h4", {}, label), words(text)));
    const inside = element(
      "div",
      { class: "inside" },
      element("p", {}, summary(row)),
      element("h3", {}, "Prompt"),
      ...texts.prompt.map(([role, text]) => element("div", { class: "turn" }, element("p", { class: "role" }, role), words(text))),
      element("h3", {}, "Responses"),
      element("div", { class: "pair" }, response(row, "a", texts.a, row.lengthA), response(row, "b", texts.b, row.lengthB)),
    );
    if (reasons.length) inside.append(element("h3", {}, "The judge's reasons"), element("div", { class: "pair" }, ...reasons));
    if (texts.judges.length) inside.append(element("h3", {}, "Each judge's probability for A"), panel(texts.judges));
    const cell = element("td", { colSpan: COLUMNS.length, role: "cell" }, inside);
    return element("tr", { class: "detail", id: `detail-${row.place}`, role: "row" }, cell);
  };

  const panel = (judges) => {
    const heads = ["Judge", "Together", "A first", "B first"].map((label) => element("th", { scope: "col" }, label));
    const body = judges.map(([name, ...probs]) =>
      element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, name)), ...probs.map((prob) => element("td", {}, percent(prob)))),
    );
    return element("table", { class: "judges" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body));
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(visibleRows.length / PAGE));
    const start = state.page * PAGE;
    const part = visibleRows.slice(start, start + PAGE);
    byId("head").replaceChildren(...header());
    byId("body").replaceChildren(...part.flatMap(shownRow));
    const range = part.length ? `: ${grouped(start + 1)} to ${grouped(start + part.length)} shown` : "";
    byId("status").textContent = `${grouped(visibleRows.length)} of ${grouped(rows.length)} disagreements${range}`;
    byId("page").textContent = `Page ${grouped(state.page + 1)} of ${grouped(pages)}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
    byId("sort").value = state.sort;
  };

  const turnPage = (by) => {
    state.page += by;
    show();
    const first = byId("body").querySelector(".opener");
    if (first) first.focus();
    byId("explorer").querySelector("table").scrollIntoView({ block: "start" });
  };

  // ---------------------------------------------------------------------------------------------- controls

  const option = (value, label) => element("option", { value: String(value) }, label);

  const controls = () => {
    for (const [kind, label] of KINDS) {
      const count = kind === 0 ? rows.length : rows.filter((row) => row.kinds & kind).length;
      if (count) byId("kind").append(option(kind, `${label} (${grouped(count)})`));
    }
    data.columns.forEach((column, at) => {
      if (data.values[at].length < 2) return;
      const select = element("select", { id: `group-${at}` }, option(-1, "All"));
      const counts = data.values[at].map(() => 0);
      for (const row of rows) counts[row.groups[at]] += 1;
      data.values[at].map((value, place) => [counts[place], place, value]).sort((one, other) => other[0] - one[0]).forEach(([count, place, value]) => {
        select.append(option(place, `${value || "(empty)"} (${grouped(count)})`));
      });
      select.addEventListener("change", () => {
        state.groups[at] = Number(select.value);
        update();
      });
      byId("group-filters").append(element("div", { class: "field" }, element("label", { htmlFor: select.id }, column), select));
    });
    for (const each of SORTS) byId("sort").append(option(each.key, each.label));
    byId("kind").addEventListener("change", () => {
      state.kind = Number(byId("kind").value);
      update();
    });
    byId("sort").addEventListener("change", () => {
      Object.assign(state, { sort: byId("sort").value, falls: byId("sort").value === "orders" });
      update();
    });
    byId("confidence").addEventListener("input", () => {
      state.least = Number(byId("confidence").value) / 100;
      byId("confidence-shown").textContent = `${byId("confidence").value}\u00a0%`;
      update();
    });
    let waiting = 0;
    byId("query").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        state.query = byId("query").value.trim().toLowerCase();
        update();
      }, DEBOUNCE_MS);
    });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("clear").addEventListener("click", () => {
      clearTimeout(waiting);
      byId("filters").reset();
      Object.assign(state, { kind: 0, groups: data.columns.map(() => -1), least: 0.5, query: "", sort: "worst", falls: false });
      byId("confidence-shown").textContent = "50\u00a0%";
      update();
    });
    byId("previous").addEventListener("click", () => turnPage(-1));
    byId("next").addEventListener("click", () => turnPage(1));
    document.addEventListener("keydown", pressed);
  };

  const move = (by) => {
    const openers = [...byId("body").querySelectorAll(".opener")];
    const line = document.activeElement.closest("tr");
    const owner = line && line.classList.contains("detail") ? line.previousElementSibling : line;
    const at = openers.findIndex((each) => owner !== null && owner.contains(each));
    const next = openers[at < 0 ? 0 : at + by];
    if (next) next.focus();
    else if (at + by >= openers.length && !byId("next").disabled) turnPage(1);
  };

  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    const isTyping = target.closest("input, select, textarea") !== null;
    const isSingle = byId("shortcuts").checked && !isTyping;
    const inTable = target.closest("#rows") !== null;
    if (event.key === "Escape" && inTable) {
      const line = target.closest("tr");
      const owner = line.classList.contains("detail") ? line.previousElementSibling : line;
      if (owner.classList.contains("open")) toggle(rows[Number(owner.dataset.place)]);
      const opener = owner.querySelector("button");
      if (opener) opener.focus();
    } else if (isSingle && event.key === "/") {
      event.preventDefault();
      byId("query").focus();
    } else if ((isSingle && (event.key === "j" || event.key === "k")) || (target.matches(".opener") && /^Arrow(Up|Down)$/.test(event.key))) {
      event.preventDefault();
      move(event.key === "j" || event.key === "ArrowDown" ? 1 : -1);
    }
  };

  controls();
  show();
  byId("explorer").hidden = false;
})();
