// openapi.json as a page: every operation with its parameters, replies, and curl lines to copy.
import { askJson, byId, copyButton, make, say } from "./common.js";

let api;

const resolve = value => value?.$ref ? value.$ref.slice(2).split("/").reduce((at, name) => at[name], api) : value;
// Text with `code` in it.
const rich = text => (text || "").split("`").map((part, i) => i % 2 ? make("code", { textContent: part }) : part);
const slug = (method, path) => (method + path).replace(/[^a-z0-9]+/gi, "-").replace(/-$/, "");

function codeBlock(text) {
  const button = make("button", { type: "button", textContent: "Copy", hidden: true });
  copyButton(button, () => text);
  return make("div", { className: "code" }, make("pre", { tabIndex: 0, textContent: text }), button);
}

function tableOf(caption, heads, rows) {
  return make("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption }, make("table", {},
    make("caption", { textContent: caption }),
    make("thead", {}, make("tr", {}, ...heads.map(textContent => make("th", { scope: "col", textContent })))),
    make("tbody", {}, ...rows)));
}

function typeOf(schema) {
  const one = resolve(schema) || {};
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.enum) return one.enum.map(value => JSON.stringify(value)).join(" | ");
  if (one.oneOf || one.anyOf) return (one.oneOf || one.anyOf).map(typeOf).join(" or ");
  if (one.type === "array") return `[${typeOf(one.items)}]`;
  return [].concat(one.type || "any").join(" or ");
}

// Fields of a schema as rows; objects inside of it are shown one step to the right.
function fieldRows(schema, depth = 0, seen = []) {
  const one = resolve(schema) || {};
  if (seen.includes(one) || depth > 4) return [];
  if (one.type === "array") return fieldRows(one.items, depth, [...seen, one]);
  const parts = one.allOf || one.oneOf || one.anyOf;
  if (parts && !one.properties) return parts.flatMap(part => fieldRows(part, depth, [...seen, one]));
  const members = Object.entries(one.properties || {});
  if (one.additionalProperties?.$ref || one.additionalProperties?.type) members.push(["(any name)", one.additionalProperties]);
  return members.flatMap(([name, field]) => [
    make("tr", {}, make("th", { scope: "row" }, "\u00a0\u00a0\u00a0".repeat(depth), make("code", { textContent: name })),
      make("td", { textContent: typeOf(field) }), make("td", {}, ...rich(field.description || resolve(field).description))),
    ...fieldRows(field, depth + 1, [...seen, one]),
  ]);
}

function replyPart(status, reply) {
  const one = resolve(reply), parts = [make("h4", {}, make("code", { textContent: status }), " ", ...rich(one.description))];
  if (Number(status) < 300) {
    for (const [type, media] of Object.entries(one.content || {})) {
      const rows = fieldRows(media.schema);
      if (rows.length) parts.push(tableOf(`Fields of ${type}`, ["Field", "Type", "Meaning"], rows));
      if (media.example !== undefined) {
        parts.push(codeBlock(typeof media.example === "string" ? media.example : JSON.stringify(media.example, null, 2)));
      }
    }
  }
  return parts;
}

function operation(path, method, op, shared) {
  const id = slug(method, path);
  const parts = [make("p", {}, ...rich(op.description))];
  for (const sample of op["x-codeSamples"] || []) {
    parts.push(codeBlock(sample.source.replaceAll("http://localhost:8080", new URL(".", location.href).href.replace(/\/$/, ""))));
  }
  const parameters = [...shared, ...(op.parameters || [])].map(resolve);
  if (parameters.length) {
    parts.push(tableOf("Parameters", ["Name", "Place", "Type", "Meaning"], parameters.map(p => make("tr", {},
      make("th", { scope: "row" }, make("code", { textContent: p.name })), make("td", { textContent: p.in }),
      make("td", { textContent: typeOf(p.schema) }), make("td", {}, ...rich(p.description))))));
  }
  for (const [type, media] of Object.entries(op.requestBody?.content || {})) {
    const rows = fieldRows(media.schema);
    if (rows.length) parts.push(tableOf(`Body as ${type}`, ["Field", "Type", "Meaning"], rows));
  }
  for (const [status, reply] of Object.entries(op.responses)) parts.push(...replyPart(status, reply));
  return make("details", { className: "operation", id, open: location.hash === "#" + id },
    make("summary", {}, make("span", { className: "method", textContent: method.toUpperCase() }), make("code", { textContent: path }), " ", op.summary),
    ...parts);
}

function render() {
  const groups = new Map(api.tags.map(tag => [tag.name, make("section", {},
    make("h3", { textContent: tag.name }), make("p", {}, ...rich(tag.description)))]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of ["get", "post", "put"]) {
      if (item[method]) groups.get(item[method].tags[0]).append(operation(path, method, item[method], item.parameters || []));
    }
  }
  const errors = api.components.schemas.Error.properties.error.properties.code;
  const codes = tableOf("Error codes", ["Code", "Meaning"], Object.entries(errors["x-meanings"]).map(([code, meaning]) =>
    make("tr", {}, make("th", { scope: "row" }, make("code", { textContent: code })), make("td", {}, ...rich(meaning)))));
  byId("docs").replaceChildren(...api.info.description.split("\n\n").map(text => make("p", {}, ...rich(text))), ...groups.values(),
    make("section", {}, make("h3", { textContent: "Errors" }), codes));
}

try {
  api = await askJson("openapi.json");
  render();
} catch (error) {
  say(byId("docs-problem"), error.message);
}
