// Starts a file that `sdpoint evaluate --html` writes.

import { Curve, curveLegend, curvePoints, curveTable, facts } from "./curve.js";
import { html } from "./draw.js";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const points = curvePoints(data.rows);

const curve = new Curve(byId("plot"), { label: "Instances by cost; arrow keys choose", choose });

/** Marks a point in the picture and in the table. */
function choose(name) {
  const point = points.find((one) => one.name === name);
  curve.mark({ A: name }, "A");
  byId("chosen").replaceChildren(html("strong", {}, name), " · ",
    facts(point).map(([label, value]) => `${label} ${value}`).join(" · "));
  for (const row of byId("table").querySelectorAll("tbody tr")) {
    row.classList.toggle("picked", row.cells[0].textContent === name);
  }
}

byId("title").textContent = data.title;
byId("about").textContent = data.about;
document.title = data.title;
byId("table").replaceChildren(curveTable(points, choose));
byId("legend").replaceChildren(curveLegend(points));
curve.show(points);
choose(points.some((point) => point.name === "full") ? "full" : points[0].name);
