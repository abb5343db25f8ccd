// Sorts tables by a click on a column's head. Without it they are as they came: by samples.
"use strict";

function value(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function compare(one, other) {
    if (typeof one === "number" && typeof other === "number") {
        return one - other;
    }
    return String(one).localeCompare(String(other), "en", { numeric: true });
}

function sortBy(table, head, column) {
    const descending = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.tHead.rows[0].cells) {
        other.removeAttribute("aria-sort");
    }
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    rows.sort((one, other) => {
        const order = compare(value(one, column), value(other, column));
        return descending ? -order : order;
    });
    body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => sortBy(table, head, column));
    });
}
