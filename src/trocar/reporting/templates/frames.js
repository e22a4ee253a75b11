// Sort, filter and look into the table of frames. Without this script it is a plain table with links.
(() => {
  const table = document.getElementById("frames");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];

  // What a cell sorts by: a number, a text, or null where it is undefined or blank.
  const keyOf = (cell, numeric) => {
    const text = cell.textContent.trim();
    if (!numeric) return text || null;
    const number = Number.parseFloat(text);
    return Number.isNaN(number) ? null : number;
  };

  const sortBy = (index, descending) => {
    const numeric = headers[index].classList.contains("n");
    const keyed = rows.map((row) => [keyOf(row.cells[index], numeric), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // undefined last, either way
      const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return descending ? -order : order;
    });
    body.append(...keyed.map(([, row]) => row));
    headers.forEach((header) => header.removeAttribute("aria-sort"));
    headers[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
  };

  headers.forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(index, header.getAttribute("aria-sort") === "ascending"));
  });

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const textOf = (row) =>
    [...row.cells].filter((cell) => !cell.classList.contains("n")).map((cell) => cell.textContent).join(" ").toLowerCase();
  const texts = new Map(rows.map((row) => [row, textOf(row)]));
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => { row.hidden = !words.every((word) => texts.get(row).includes(word)); });
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} frames`;
  });
  filter.closest("p").hidden = false;

  const dialog = document.getElementById("frame-dialog");
  body.addEventListener("click", (event) => {
    const link = event.target.closest("tr").querySelector("a");
    if (!link || String(getSelection())) return; // marking a name to copy it opens nothing
    event.preventDefault();
    const frame = document.getElementById(link.hash.slice(1)).cloneNode(true);
    frame.removeAttribute("id");
    dialog.lastElementChild.replaceChildren(frame);
    dialog.setAttribute("aria-label", frame.querySelector("h4").textContent);
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
})();
