"use strict";

// All text gets in as text, never as HTML. Words in `back quotes` are set as code.
function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function prose(text) {
  const span = element("span");
  (text ?? "").split("`").forEach((part, n) => span.append(n % 2 ? element("code", part) : part));
  return span;
}

function table(head, rows) {
  if (rows.length === 0) return "";
  const cells = (kind, row) => element("tr", ...row.map((cell) => element(kind, cell)));
  const made = element("table", element("thead", cells("th", head)), element("tbody", ...rows.map((row) => cells("td", row))));
  // On a narrow screen it is scrolled, and not the page.
  return Object.assign(element("div", made), { className: "wide" });
}

/** What a schema allows, in a few words; a schema with a name of its own is a link to it. */
function kind(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    const link = element("a", name);
    link.href = `#${name}`;
    return link;
  }
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices) {
    const span = element("span");
    choices.forEach((choice, n) => span.append(n ? (schema.allOf ? " and " : " or ") : "", kind(choice)));
    return span;
  }
  if (schema.enum) return prose(schema.enum.map((word) => `\`${word}\``).join(", "));
  if ("const" in schema) return prose(`\`${schema.const}\``);
  if (schema.type === "array") return element("span", "list of ", kind(schema.items));
  if (schema.properties) return prose(Object.entries(schema.properties).map(([name]) => `\`${name}\``).join(", "));
  const words = [[schema.type ?? "anything"].flat().join(" or ")];
  if (schema.format) words.push(`(${schema.format})`);
  if (schema.minimum !== undefined || schema.maximum !== undefined) words.push(`${schema.minimum ?? ""}…${schema.maximum ?? ""}`);
  if (schema.pattern) words.push(`\`${schema.pattern}\``);
  return prose(words.join(" "));
}

/** The fields of an object, and of all that it is made of. */
function fields(schema) {
  const own = Object.entries(schema.properties ?? {}).map(([name, field]) =>
    [element("code", name), schema.required?.includes(name) ? "required" : "", kind(field), prose(field.description)]);
  return [...own, ...(schema.allOf ?? []).flatMap(fields)];
}

function body(content) {
  const span = element("span");
  Object.entries(content ?? {}).forEach(([type, { schema }], n) => {
    // An error's type is the same everywhere; what is special about it stands in the description.
    const named = schema?.allOf?.[0] ?? schema;
    const json = type === "application/json";
    span.append(n ? ", or " : "", json ? kind(named) : element("code", type));
    if (!json && named?.$ref) span.append(": ", kind(named));
  });
  return span;
}

function operation(spec, path, method, described) {
  const parameters = (described.parameters ?? []).map((parameter) =>
    parameter.$ref ? spec.components.parameters[parameter.$ref.split("/").pop()] : parameter);
  const heading = element("summary", element("span", method.toUpperCase()), element("code", path), " ");
  heading.firstChild.className = "method";
  heading.append(prose(described.summary));
  const request = described.requestBody;
  return element("details", heading,
    described.description ? element("p", prose(described.description)) : "",
    described.security?.length === 0 ? element("p", "Asks for no secret.") : "",
    table(["parameter", "in", "", "what it holds", ""], parameters.map((parameter) =>
      [element("code", parameter.name), parameter.in, parameter.required ? "required" : "", kind(parameter.schema), prose(parameter.description)])),
    request ? element("p", "Body: ", body(request.content), " ", prose(request.description)) : "",
    table(["answer", "", "body"], Object.entries(described.responses).map(([status, answer]) =>
      [element("code", status), prose(answer.description), body(answer.content)])));
}

async function show() {
  const spec = await (await fetch("/openapi.json")).json();
  const page = element("main", element("h1", spec.info.title), element("p", prose(spec.info.description)),
    element("p", `Version ${spec.info.version}. `, Object.assign(element("a", "The document itself"), { href: "/openapi.json" })));
  const all = Object.entries(spec.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({ path, method, described })));
  all.sort((a, b) => a.described["x-order"] - b.described["x-order"]);
  for (const { name, description } of spec.tags) {
    const own = all.filter(({ described }) => described.tags?.includes(name));
    page.append(element("h2", name), element("p", prose(description)),
      ...own.map(({ path, method, described }) => operation(spec, path, method, described)));
  }
  page.append(element("h2", "Bodies"));
  for (const [name, schema] of Object.entries(spec.components.schemas)) {
    const words = schema.enum ? [element("p", kind(schema))] : [table(["field", "", "what it holds", ""], fields(schema))];
    const shown = element("details", element("summary", element("code", name), " ", prose(schema.description)), ...words);
    shown.id = name;
    page.append(shown);
  }
  document.getElementById("page").replaceWith(page);
  addEventListener("hashchange", open);
  open();
}

/** A link to a body shows what is in it. */
function open() {
  const shown = document.getElementById(location.hash.slice(1));
  if (shown) Object.assign(shown, { open: true }).scrollIntoView();
}

show().catch((error) => document.getElementById("page").replaceChildren(`The document can't be shown: ${error.message}`));
