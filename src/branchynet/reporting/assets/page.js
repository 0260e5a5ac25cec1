// What every page has: it unpacks itself, draws its plots in the reader's light or dark, and copies text.

const element = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function unpack(id) {
  const stream = new Blob([bytes(element(id).textContent)]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text();
}

// The page's data, and its plots' documents by the place that they are put into.
async function open_page() {
  const library = document.createElement("script");
  library.textContent = await unpack("library");
  document.head.append(library);
  const data = JSON.parse(await unpack("data"));
  const plots = {};
  for (const item of data.plots) {
    const views = await Bokeh.embed.embed_item(item);
    plots[item.target_id] = (views.get_one_by_id ? views.get_one_by_id(item.root_id) : [...views][0]).model;
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => Object.values(plots).forEach(in_its_colours);
  dark.addEventListener("change", paint);
  paint();
  return [data, plots];
}

function in_its_colours(plot) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  for (const part of [...plot.below, ...plot.left, ...plot.center, ...plot.right]) {
    for (const name of ["axis_label_text_color", "major_label_text_color", "label_text_color"]) {
      if (name in part) part[name] = ink;
    }
    if ("ncols" in part) part.ncols = innerWidth < 600 ? 1 : 3;
    for (const name of ["axis_line_color", "major_tick_line_color", "minor_tick_line_color", "grid_line_color"]) {
      if (name in part) part[name] = line;
    }
  }
}

async function copy(field, status) {
  field.focus();
  field.select();
  let done = false;
  try {
    await navigator.clipboard.writeText(field.value);
    done = true;
  } catch {
    done = document.execCommand("copy");
  }
  status.textContent = done ? "copied" : "select it and copy it by hand";
}

// Header cells that sort: sort(index, rising) is called.
function sortable(row, names, sort, first = 0, rising = true) {
  const cells = names.map((name, index) => {
    const cell = make("th", { scope: "col" }, make("button", { type: "button", textContent: name }));
    cell.firstChild.addEventListener("click", () => {
      turn(index, cell.getAttribute("aria-sort") !== "ascending");
    });
    return cell;
  });
  const turn = (index, up) => {
    cells.forEach((cell, n) => cell.setAttribute("aria-sort", n !== index ? "none" : up ? "ascending" : "descending"));
    sort(index, up);
  };
  row.replaceChildren(...cells);
  turn(first, rising);
}

// The shortest decimal number that is this float32: thresholds are float32.
function decimal(value) {
  for (let digits = 1; digits < 10; digits++) {
    const text = Number(value.toPrecision(digits));
    if (Math.fround(text) === Math.fround(value)) return text;
  }
  return value;
}

const percent = (fraction, digits = 2) => `${(100 * fraction).toFixed(digits)} %`;
const amount = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 1000 ? 1 : 0 });

function failed(error) {
  const place = element("failed");
  place.hidden = false;
  place.textContent = `This page cannot be shown here (${error}): it needs a browser of 2023 or later.`;
  throw error;
}
