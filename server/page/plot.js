// One line plot over the last ten minutes, as SVG.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 150, LEFT = 46, RIGHT = 8, TOP = 10, BOTTOM = 20;
export const SPAN_S = 600;

function add(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
}

// The smallest of 1, 2, 5 x 10^n that is not below the value.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map(step => step * power).find(top => top >= value * 0.9999);
}

const number = value => value === 0 ? "0" : value >= 10000 ? (value / 1000).toFixed(0) + " k" : String(+value.toPrecision(2));

// A gap of more than `gap` seconds between two points stays empty.
function pathOf(points, x, y, gap = 12) {
  let text = "", last = -Infinity;
  for (const [t, value] of points) {
    if (value === null) {
      last = -Infinity;
      continue;
    }
    text += (t - last > gap ? "M" : "L") + x(t).toFixed(1) + " " + y(value).toFixed(1);
    last = t;
  }
  return text;
}

// series: [{points: [[seconds, value or null], ...], style: 0...5}]
export function draw(svg, series, now, least = 1) {
  const width = svg.clientWidth || 600;
  const top = round(Math.max(least, ...series.flatMap(one => one.points.map(point => point[1] ?? 0))));
  const x = t => LEFT + (width - LEFT - RIGHT) * (1 - (now - t) / SPAN_S);
  const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  for (const value of [0, top / 2, top]) {
    add(svg, "line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) });
    add(svg, "text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value));
  }
  for (const minutes of width < 420 ? [10, 5, 0] : [10, 8, 6, 4, 2, 0]) {
    add(svg, "text", { x: x(now - 60 * minutes), y: HEIGHT - 4, "text-anchor": minutes === 0 ? "end" : minutes === 10 ? "start" : "middle" },
      minutes ? `-${minutes} min` : "now");
  }
  for (const one of series) add(svg, "path", { class: "l" + one.style, d: pathOf(one.points, x, y) });
}
