// The page of a run. Everything is counted anew from what the exits say of each image, in the float32 that engines
// compare in and the double precision of result.json, so that the numbers here are those there.

const STEPS = 1000; // of a slider: a key moves a thousandth of the images
const ROWS = 200; // classes in the table at once
const PICTURES = 48; // images at once

function main([data, plots]) {
  const splits = Object.fromEntries(Object.entries(data.splits).map(([name, split]) => [name, opened(split)]));
  const live = splits[data.live];
  const exits = live.uncertainty.length;
  const documents = plots.plot.document;
  const source = (name) => documents.get_model_by_name(name);
  const partly = Object.values(data.splits).some((split) => split.good); // answers are maps
  let now = data.point.slice();
  let kind = "latency_us";
  let shown = PICTURES;
  let sorted = [0, true];

  function opened(split) {
    return {
      ...split,
      uncertainty: split.uncertainty.map((text) => new Float32Array(bytes(text).buffer)),
      right: split.right.map((text) => (split.good ? new Float64Array(bytes(text).buffer) : bytes(text))),
      good: (split.good || split.right).map(bytes), // answers that do no harm: of classes the right ones
      label: new Int32Array(bytes(split.label).buffer),
    };
  }

  // Where each image leaves (0-based): at the first exit that is surer than its threshold, else at the last.
  function taken(split, thresholds) {
    const limits = thresholds.map(Math.fround);
    return Uint16Array.from({ length: split.samples }, (_, sample) => {
      let exit = 0;
      while (exit < exits - 1 && !(split.uncertainty[exit][sample] < limits[exit])) exit++;
      return exit;
    });
  }

  function given(split, thresholds) {
    const leaving = taken(split, thresholds);
    const left = new Array(exits).fill(0);
    const right = new Array(exits).fill(0);
    leaving.forEach((exit, sample) => {
      left[exit]++;
      right[exit] += split.right[exit][sample];
    });
    const rates = left.map((count) => count / split.samples);
    const found = { leaving, left, right, rates, accuracy: right.reduce((a, b) => a + b, 0) / split.samples };
    for (const [name, cost] of Object.entries(data.costs)) {
      found[name] = rates.reduce((sum, rate, exit) => sum + rate * cost.exits[exit], 0);
      found[`gain_${name}`] = cost.baseline / found[name];
    }
    return found;
  }

  // --- what does not move ---

  const other = Object.keys(splits).find((name) => name !== data.live);
  const chosen = Object.fromEntries(Object.keys(splits).map((name) => [name, given(splits[name], data.point)]));
  const frontier = data.frontier.map((thresholds) => ({ thresholds, ...given(live, thresholds) }));
  const forced = live.right.map((right, exit) => ({
    exit,
    accuracy: right.reduce((a, b) => a + b, 0) / live.samples,
    ...Object.fromEntries(Object.entries(data.costs).map(([name, cost]) => [name, cost.exits[exit]])),
  }));

  element("name").textContent = data.name;
  element("about").textContent =
    `seed ${data.seed} · ${exits} exits · criterion ${data.criterion}, ${data.unit} · rule ${data.rule}`;
  element("where").textContent = `Latency: measured medians of ${data.where}, all heads on the way included.`;
  if (data.noise.length) {
    element("noise").hidden = false;
    element("noise").textContent = `Noisy timings: ${data.noise.join("; ")}.`;
  }
  element("note").hidden = !data.note;
  element("note").textContent = data.note;
  element("honesty").textContent = data.paper
    ? "The paper's protocol: thresholds are moved on the very test images that are reported, which flatters. To compare only."
    : "They are moved on validation images alone. Test is shown for the operating point and for no other: whoever chooses by test has none left.";
  const thinned = Object.values(splits).filter((split) => split.step > 1);
  for (const split of thinned) {
    element("honesty").textContent +=
      ` Of ${amount(split.of)} ${split.words} images every ${split.step}th is on this page, so numbers differ a little from the report's.`;
  }

  // --- sliders ---

  const controls = [];
  for (let exit = 0; exit < exits - 1; exit++) {
    const values = live.uncertainty[exit].slice().sort();
    const steps = Math.min(STEPS, values.length);
    // Midway between two neighbours, as the sweep's own; the ends keep and take everybody.
    const threshold = (step) => {
      const count = Math.round((step / steps) * values.length);
      if (count === 0) return 0;
      if (count === values.length) return Math.fround(Math.fround(values[count - 1] * 2) + 1);
      const [low, high] = [values[count - 1], values[count]];
      const middle = Math.fround(low + Math.fround(Math.fround(high - low) / 2));
      return middle > low ? middle : high;
    };
    const below = (limit) => {
      let [low, high] = [0, values.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (values[middle] < Math.fround(limit)) low = middle + 1;
        else high = middle;
      }
      return low;
    };
    const id = `exit-${exit + 1}`;
    const slider = make("input", { type: "range", min: 0, max: steps, step: 1, id });
    const number = make("input", { type: "number", min: 0, step: "any" });
    number.setAttribute("aria-label", `threshold of exit ${exit + 1}, ${data.unit}`);
    const words = make("span", { className: "soft" });
    element("sliders").append(
      make("div", { className: "threshold" }, make("label", { htmlFor: id, textContent: `Exit ${exit + 1} below` }), slider, number, words),
    );
    slider.addEventListener("input", () => move(exit, decimal(threshold(Number(slider.value)))));
    number.addEventListener("change", () => {
      const value = Number(number.value);
      move(exit, number.value !== "" && Number.isFinite(Math.fround(value)) && value >= 0 ? value : now[exit]);
    });
    controls.push((moved) => {
      const count = below(now[exit]);
      if (!moved || document.activeElement !== slider) slider.value = Math.round((count / values.length) * steps);
      number.value = now[exit];
      words.textContent = `${percent(count / values.length, 1)} of the images are surer than that at this exit`;
      slider.setAttribute("aria-valuetext", `${now[exit].toPrecision(3)} ${data.unit}, ${words.textContent}`);
    });
  }
  if (exits === 1) element("thresholds").hidden = true;

  function move(exit, value) {
    now[exit] = value;
    draw();
  }

  function take(thresholds) {
    now = thresholds.slice();
    draw();
  }

  element("reset").addEventListener("click", () => take(data.point));
  const step = (towards) => {
    const cost = given(live, now).latency_us;
    const beyond = frontier.filter((point) => towards * (point.latency_us - cost) > 1e-9 * cost);
    const next = towards > 0 ? beyond[0] : beyond[beyond.length - 1];
    if (next) take(next.thresholds);
  };
  element("cheaper").addEventListener("click", () => step(-1));
  element("dearer").addEventListener("click", () => step(1));

  // --- numbers ---

  function table(found) {
    const columns = [[`these thresholds, ${live.words}`, found, live], [`operating point, ${live.words}`, chosen[data.live], live]];
    if (other) columns.push([`operating point, ${splits[other].words}`, chosen[other], splits[other]]);
    const head = make("tr", {}, make("td"), ...columns.map(([name]) => make("th", { scope: "col", textContent: name })));
    const rows = [["accuracy", (point) => [point.accuracy, percent(point.accuracy)]]];
    rows.push(["against the baseline, points", (point, split) => {
      const difference = point.accuracy - split.baseline;
      return [difference, `${difference >= 0 ? "+" : "−"}${Math.abs(100 * difference).toFixed(2)}`];
    }]);
    for (const [name, cost] of Object.entries(data.costs)) {
      rows.push([`mean ${cost.what}${cost.unit === cost.what ? "" : `, ${cost.unit}`}`, (point) => [point[name], amount(point[name])]]);
      rows.push([`gain in ${cost.what}`, (point) => [point[`gain_${name}`], `${point[`gain_${name}`].toFixed(2)} ×`]]);
    }
    for (let exit = 0; exit < exits; exit++) {
      rows.push([`leave at exit ${exit + 1}`, (point) => [point.rates[exit], percent(point.rates[exit], 1)]]);
    }
    for (let exit = 0; exit < exits; exit++) {
      rows.push([`right of those at exit ${exit + 1}`, (point) => {
        const share = point.left[exit] ? point.right[exit] / point.left[exit] : null;
        return [share, share === null ? "–" : percent(share)];
      }]);
    }
    const body = rows.map(([name, value]) => {
      const cells = columns.map(([, point, split], column) => {
        const [exact, text] = value(point, split);
        const cell = make("td", { textContent: text, className: column ? "" : "now" });
        cell.dataset.value = exact;
        return cell;
      });
      const row = make("tr", {}, make("th", { scope: "row", textContent: name }), ...cells);
      row.dataset.name = name;
      return row;
    });
    element("numbers").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
    element("spoken").textContent =
      `${percent(found.accuracy)} right at ${amount(found.latency_us)} µs, ${found.gain_latency_us.toFixed(2)} times as fast as the baseline.`;
  }

  // --- plot ---

  const told = (words, point) =>
    [words, `accuracy ${percent(point.accuracy)}`,
      ...Object.entries(data.costs).map(([name, cost]) => `${amount(point[name])} ${cost.unit}, gain ${(cost.baseline / point[name]).toFixed(2)}`),
      ...(point.rates ? [`exit rates ${point.rates.map((rate) => percent(rate, 1)).join(", ")}`] : []),
    ].join("<br>");
  const of_thresholds = (thresholds) => `thresholds ${thresholds.map((value) => value.toPrecision(3)).join(", ")}`;

  function fill(name, points, words) {
    source(name).data = {
      x: points.map((point) => point[kind] / (kind === "macs" ? 1e6 : 1)),
      accuracy: points.map((point) => 100 * point.accuracy),
      told: points.map((point) => told(words(point), point)),
    };
  }

  function plot_still() {
    plots.plot.below.find((part) => "axis_label" in part).axis_label =
      kind === "macs" ? "mean cost per image, million MACs" : "mean latency per image, µs";
    plots.plot.left[0].axis_label = `accuracy on ${live.words}, %`;
    fill("frontier", frontier, (point) => of_thresholds(point.thresholds));
    fill("exits", forced, (point) => `all leave at exit ${point.exit + 1}`);
    const baseline = Object.fromEntries(Object.entries(data.costs).map(([name, cost]) => [name, cost.baseline]));
    fill("baseline", [{ ...baseline, accuracy: live.baseline }], () => "baseline");
    fill("point", [chosen[data.live]], () => `operating point, ${of_thresholds(data.point)}`);
  }

  for (const [name, cost] of Object.entries(data.costs)) element("cost").append(make("option", { value: name, textContent: cost.what }));
  element("cost").addEventListener("change", () => {
    kind = element("cost").value;
    plot_still();
    draw();
  });
  const selected = source("frontier").selected;
  selected.properties.indices.change.connect(() => {
    if (selected.indices.length) {
      take(frontier[selected.indices[0]].thresholds);
      selected.indices = [];
    }
  });
  element("plot-words").textContent =
    `${frontier.length} points of the frontier: no other thresholds tried are more accurate at no more latency, on ${live.words}. Point at one to see it; the buttons above and the table go through them, too.`;

  sortable(element("frontier").createTHead().insertRow(), ["thresholds", "accuracy", "latency, µs", "gain in latency", "gain in MACs", ""], (index, up) => {
    const keys = [(p) => p.thresholds[0], (p) => p.accuracy, (p) => p.latency_us, (p) => p.gain_latency_us, (p) => p.gain_macs, (p) => p.latency_us];
    const order = frontier.slice().sort((a, b) => (up ? 1 : -1) * (keys[index](a) - keys[index](b)));
    const body = element("frontier").tBodies[0] || element("frontier").createTBody();
    body.replaceChildren(...order.map((point) => {
      const button = make("button", { type: "button", textContent: "take" });
      button.setAttribute("aria-label", `take the point with an accuracy of ${percent(point.accuracy)}`);
      button.addEventListener("click", () => take(point.thresholds));
      const cells = [point.thresholds.map((value) => value.toPrecision(3)).join(", "), percent(point.accuracy), amount(point.latency_us), point.gain_latency_us.toFixed(2), point.gain_macs.toFixed(2)];
      return make("tr", {}, ...cells.map((text) => make("td", { textContent: text })), make("td", {}, button));
    }));
  }, 2);

  // --- classes and images ---

  element("split").append(make("option", { value: data.live, textContent: `${live.words}, at these thresholds` }));
  if (other) element("split").append(make("option", { value: other, textContent: `${splits[other].words}, at the operating point` }));
  element("leaving").append(make("option", { value: "", textContent: "any exit" }));
  for (let exit = 0; exit < exits; exit++) element("leaving").append(make("option", { value: exit, textContent: `exit ${exit + 1}` }));
  if (data.classes.length <= 300) element("classes").append(...data.classes.map((name) => make("option", { value: name })));
  for (const id of ["split", "leaving", "answered"]) element(id).addEventListener("change", anew);
  element("search").addEventListener("input", anew);
  element("more").addEventListener("click", () => {
    const first = shown;
    shown += PICTURES;
    looked_at();
    element("images").children[first]?.focus();
  });

  function anew() {
    shown = PICTURES;
    looked_at();
  }

  // A name typed in full is that class alone, though others begin or end like it.
  function matcher() {
    const text = element("search").value.trim().toLowerCase();
    const exact = data.classes.some((name) => name.toLowerCase() === text);
    return data.classes.map((name) => (exact ? name.toLowerCase() === text : name.toLowerCase().includes(text)));
  }

  function looked_at(found = null) {
    const name = element("split").value;
    const split = splits[name];
    const point = name === data.live ? found ?? given(live, now) : chosen[name];
    const matches = matcher();
    classes(split, point, matches);
    pictures(split, point, matches);
  }

  function classes(split, point, matches) {
    const rows = data.classes.map((name) => ({ name, images: 0, right: 0, left: new Array(exits).fill(0) }));
    point.leaving.forEach((exit, sample) => {
      const row = rows[split.label[sample]];
      row.images++;
      row.right += split.right[exit][sample];
      row.left[exit]++;
    });
    const value = (row, index) => (index === 1 ? row.images : row.images === 0 ? -1 : index === 2 ? row.right / row.images : row.left[index - 3] / row.images);
    const [index, up] = sorted;
    const kept = rows.filter((_, label) => matches[label]);
    if (index || !up) {
      kept.sort((a, b) => (up ? 1 : -1) * (index ? value(a, index) - value(b, index) : a.name.localeCompare(b.name, "en", { numeric: true })));
    }
    element("class-words").textContent =
      `${amount(kept.length)} of ${amount(rows.length)} classes` + (kept.length > ROWS ? `, the first ${ROWS} in this order are shown` : "") +
      `: how many of their images are answered rightly, and where they leave.`;
    element("class-rows").replaceChildren(...kept.slice(0, ROWS).map((row) => {
      const shares = [row.right, ...row.left].map((count) => (row.images ? count / row.images : null));
      const cells = shares.map((share) => {
        const cell = make("td", { textContent: share === null ? "–" : percent(share, 1) });
        cell.dataset.value = share;
        return cell;
      });
      return make("tr", {}, make("th", { scope: "row", textContent: row.name }), make("td", { textContent: amount(row.images) }), ...cells);
    }));
  }

  function pictures(split, point, matches) {
    const sheet = split.images;
    element("more").hidden = true;
    if (!sheet) {
      element("images").replaceChildren();
      element("image-words").textContent =
        "No images are on this page: it was made from the stored traces alone. branchynet evaluate … from=network in_place=true brings them.";
      return;
    }
    const [leaving, answered] = [element("leaving").value, element("answered").value];
    const kept = [];
    sheet.samples.forEach((sample, place) => {
      const exit = point.leaving[sample];
      const [label, predicted, right] = [split.label[sample], sheet.predicted[place][exit], split.good[exit][sample]];
      if ((matches[label] || matches[predicted]) && (leaving === "" || exit === Number(leaving)) && (answered === "" || right === Number(answered))) {
        kept.push({ sample, place, exit, label, predicted, right });
      }
    });
    element("image-words").textContent =
      `${amount(Math.min(shown, kept.length))} of ${amount(kept.length)} images like this that are on this page; it has ${amount(sheet.samples.length)} of ` +
      `${amount(split.of)} ${split.words} images, of every class, exit, and of right and wrong ones as equal numbers as there are, so they are no fair sample. ` +
      `A class is found by label and by answer.` +
      (partly ? " An image's class is that of most of its pixels; right is an answer that is no worse than the last exit's." : "");
    element("more").hidden = kept.length <= shown;
    const scale = Math.max(1, Math.floor(72 / Math.max(sheet.width, sheet.height)));
    element("images").replaceChildren(...kept.slice(0, shown).map((each) => {
      const picture = make("div", { className: scale > 1 ? "picture small" : "picture" });
      const [column, row] = [each.place % sheet.columns, Math.floor(each.place / sheet.columns)];
      Object.assign(picture.style, {
        width: `${scale * sheet.width}px`,
        height: `${scale * sheet.height}px`,
        backgroundImage: "var(--sheet)",
        backgroundPosition: `${-scale * column * sheet.wide}px ${-scale * row * sheet.high}px`,
        backgroundSize: `${scale * sheet.columns * sheet.wide}px auto`,
      });
      const uncertainty = split.uncertainty[each.exit][each.sample];
      const item = make("li", { className: each.right ? "right" : "wrong", tabIndex: -1 }, picture,
        make("span", { className: "mark", textContent: each.right ? `✓ ${data.classes[each.label]}` : `✗ ${data.classes[each.label]} → ${data.classes[each.predicted]}` }),
        make("br"), `exit ${each.exit + 1} at ${uncertainty.toPrecision(2)}`);
      item.title = `image ${each.sample * split.step} of ${split.words}`;
      return item;
    }));
    element("images").style.setProperty("--sheet", `url("${sheet.sheet}")`);
  }

  // --- all of it ---

  let waiting = false;
  function draw() {
    // Once per frame, however fast a slider is dragged.
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const found = given(live, now);
      controls.forEach((show) => show(true));
      table(found);
      fill("now", [found], () => `these thresholds, ${now.map((value) => value.toPrecision(3)).join(", ")}`);
      const list = `[${now.map((value) => decimal(value)).join(",")}]`;
      element("command").value = `${data.command} sweep/rule=given sweep.rule.thresholds=${list}`;
      element("of-predict").textContent = `thresholds=${list}`;
      element("copied").textContent = "";
      looked_at(found);
    });
  }

  element("copy").addEventListener("click", () => copy(element("command"), element("copied")));
  element("main").hidden = false;
  plot_still();
  sortable(element("class-head"), ["class", "images", "right", ...Array.from({ length: exits }, (_, exit) => `exit ${exit + 1}`)], (index, up) => {
    sorted = [index, up];
    looked_at();
  });
  draw();
}

open_page().then(main).catch(failed);
