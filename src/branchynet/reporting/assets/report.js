// The page of a report on many runs: what is found by words is in the plot and in the table.

const ROWS = 300; // in the table at once

function main([data, plots]) {
  const source = (name) => plots.plot.document.get_model_by_name(name);
  const costs = {
    gain_latency: ["gain in latency", (cost, baseline) => baseline.latency_us / cost.latency_us],
    gain_macs: ["gain in MACs", (cost, baseline) => baseline.macs / cost.macs],
    latency_us: ["mean latency per image, µs", (cost) => cost.latency_us],
    macs: ["mean cost per image, million MACs", (cost) => cost.macs / 1e6],
  };
  let kind = "gain_latency";
  let sorted = [4, false];
  const rows = data.rows.map((row, number) => ({
    ...row,
    number,
    of: data.groups[row.group],
    colour: data.colours[row.group % data.colours.length],
    gains: Object.fromEntries(Object.entries(costs).map(([name, [, value]]) => [name, value(row.point, row.baseline)])),
    words: [row.name, data.groups[row.group], row.criterion, row.rule, row.engine, row.kind, `seed=${row.seed}`, row.split].join(" ").toLowerCase(),
  }));

  element("name").textContent = `Runs in ${data.title}`;
  element("about").textContent = `${amount(rows.length)} runs and evaluations in ${amount(data.groups.length)} groups: those of a group have the same settings but for the seed.`;
  element("group").append(make("option", { value: "", textContent: "all" }), ...data.groups.map((name, number) => make("option", { value: number, textContent: name })));
  for (const [name, [words]] of Object.entries(costs)) element("cost").append(make("option", { value: name, textContent: words }));
  element("plot-words").textContent =
    "A curve is a run's frontier, as it was chosen on its validation images, with the accuracy on the split that is reported; the star is its operating point, " +
    "the cross its baseline. Colours are groups. Point at one to read it; click a star to find it in the table." +
    (data.curves ? "" : " With so many runs only the operating points are here.");
  element("warning").hidden = !data.warning;
  element("warning").textContent = data.warning;
  element("left").hidden = !data.left_out.length;
  element("left-out").append(...data.left_out.map((each) => make("li", {}, make("strong", { textContent: each.name }), `: ${each.reason}`)));

  // All words, in any order.
  function kept() {
    const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const group = element("group").value;
    return rows.filter((row) => (group === "" || row.group === Number(group)) && words.every((word) => row.words.includes(word)));
  }

  const safe = (text) => make("span", { textContent: text }).innerHTML;
  const told = (row, words, point) =>
    [`<b>${safe(row.name)}</b>`, safe(row.of), words, `accuracy on ${row.split}${row.paper ? " (chosen there: the paper's protocol)" : ""} ${percent(point.accuracy)}`,
      `${amount(point.latency_us)} µs, ${amount(point.macs)} MACs`,
      `gain ${costs.gain_latency[1](point, row.baseline).toFixed(2)} in latency, ${costs.gain_macs[1](point, row.baseline).toFixed(2)} in MACs`].join("<br>");

  function draw_plot(shown) {
    const value = costs[kind][1];
    plots.plot.below[0].axis_label = costs[kind][0];
    const curves = shown.filter((row) => row.curve);
    source("curves").data = {
      xs: curves.map((row) => row.curve.macs.map((macs, n) => value({ macs, latency_us: row.curve.latency_us[n] }, row.baseline))),
      ys: curves.map((row) => row.curve.accuracy.map((accuracy) => 100 * accuracy)),
      colour: curves.map((row) => row.colour),
      told: curves.map((row) => `<b>${safe(row.name)}</b><br>${safe(row.of)}`),
    };
    for (const [name, part, words] of [["points", "point", "operating point"], ["baselines", "baseline", "baseline"]]) {
      source(name).data = {
        x: shown.map((row) => value(row[part], row.baseline)),
        y: shown.map((row) => 100 * row[part].accuracy),
        colour: shown.map((row) => row.colour),
        told: shown.map((row) => told(row, words, row[part])),
        number: shown.map((row) => row.number),
      };
    }
  }

  const columns = [
    ["run", (row) => row.name],
    ["group", (row) => row.of],
    ["seed", (row) => row.seed],
    ["accuracy", (row) => row.point.accuracy, (value, row) => `${percent(value)}${row.split === "test" ? "" : " (val)"}${row.paper ? " (paper)" : ""}`],
    ["against the baseline, points", (row) => row.point.accuracy - row.baseline.accuracy, (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(2)}`],
    ["gain in latency", (row) => row.gains.gain_latency, (value) => value.toFixed(2)],
    ["gain in MACs", (row) => row.gains.gain_macs, (value) => value.toFixed(2)],
    ["latency, µs", (row) => row.point.latency_us, amount],
    ["MACs, million", (row) => row.point.macs, (value) => (value / 1e6).toFixed(3)],
    ["criterion", (row) => row.criterion],
    ["rule", (row) => row.rule],
    ["exit rates, %", (row) => row.exit_rates[0], (_, row) => row.exit_rates.map((rate) => (100 * rate).toFixed(0)).join(" ")],
  ];

  // Long names may break behind these letters, and not first in the middle of a word.
  const broken = (text) => String(text).split(/(?<=[_,=/])/).flatMap((part) => [part, make("wbr")]);

  function draw_table(shown) {
    const [index, up] = sorted;
    const key = columns[index][1];
    const order = shown.slice().sort((a, b) => {
      const [one, other] = [key(a), key(b)];
      return (up ? 1 : -1) * (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));
    });
    element("rows").replaceChildren(...order.slice(0, ROWS).map((row) => {
      const cells = columns.map(([, value, text], column) => {
        const found = value(row);
        const cell = make(column ? "td" : "th", {}, ...broken(text ? text(found, row) : found));
        if (column === 0) {
          cell.scope = "row";
          cell.textContent = "";
          const mark = make("span", { textContent: "★ " });
          mark.style.color = row.colour;
          mark.setAttribute("aria-hidden", "true");
          cell.append(mark, ...(row.link ? [make("a", { href: row.link }, ...broken(row.name))] : broken(row.name)));
        }
        cell.dataset.value = found;
        return cell;
      });
      return make("tr", { id: `row-${row.number}`, tabIndex: -1 }, ...cells);
    }));
    element("row-words").textContent = order.length > ROWS ? `The first ${ROWS} of ${amount(order.length)} in this order.` : "";
  }

  function draw() {
    const shown = kept();
    element("found").textContent = `${amount(shown.length)} of ${amount(rows.length)} are shown.`;
    draw_plot(shown);
    draw_table(shown);
  }

  const selected = source("points").selected;
  selected.properties.indices.change.connect(() => {
    if (!selected.indices.length) return;
    const line = element(`row-${source("points").data.number[selected.indices[0]]}`);
    selected.indices = [];
    document.querySelectorAll("tr.chosen").forEach((each) => each.classList.remove("chosen"));
    line?.classList.add("chosen");
    line?.focus();
    line?.scrollIntoView({ block: "center" });
  });
  element("search").addEventListener("input", draw);
  element("group").addEventListener("change", draw);
  element("cost").addEventListener("change", () => {
    kind = element("cost").value;
    draw();
  });
  element("main").hidden = false;
  sortable(element("head"), columns.map(([name]) => name), (index, up) => {
    sorted = [index, up];
    draw_table(kept());
  }, 5, false);
  draw();
}

open_page().then(main).catch(failed);
