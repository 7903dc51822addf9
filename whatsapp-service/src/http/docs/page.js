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
  return element("table", element("thead", cells("th", head)), element("tbody", ...rows.map((row) => cells("td", row))));
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
    [element("code", name), schema.required?.includes(name) ? "always" : "", kind(field), prose(field.description)]);
  return [...own, ...(schema.allOf ?? []).flatMap(fields)];
}

function body(content) {
  const span = element("span");
  Object.entries(content ?? {}).forEach(([type, { schema }], n) => {
    const json = type === "application/json";
    // An error's type is the same everywhere; what is special about it stands in the description.
    span.append(n ? ", " : "", json ? kind(schema?.allOf?.[0] ?? schema) : element("code", type));
  });
  return span;
}

function operation(spec, path, method, described) {
  const parameters = (described.parameters ?? []).map((parameter) =>
    parameter.$ref ? spec.components.parameters[parameter.$ref.split("/").pop()] : parameter);
  const heading = element("summary", element("span", method.toUpperCase()), element("code", path), " ");
  heading.firstChild.className = "method";
  const [, summary = described.summary] = (described.summary ?? "").match(/^`[^`]*`: (.*)$/) ?? [];
  heading.append(prose(summary));
  const request = described.requestBody;
  return element("details", heading,
    described.description ? element("p", prose(described.description)) : "",
    described.security?.length === 0 ? element("p", "Asks for no secret.") : "",
    table(["parameter", "in", "", "what it holds", ""], parameters.map((parameter) =>
      [element("code", parameter.name), parameter.in, parameter.required ? "always" : "", kind(parameter.schema), prose(parameter.description)])),
    request ? element("p", "Body: ", body(request.content), " ", prose(request.description)) : "",
    table(["answer", "", "body"], Object.entries(described.responses).map(([status, answer]) =>
      [element("code", status), prose(answer.description), body(answer.content)])));
}

async function show() {
  const spec = await (await fetch("/openapi.json")).json();
  const page = element("main", element("h1", spec.info.title), element("p", prose(spec.info.description)),
    element("p", `Version ${spec.info.version}. `, Object.assign(element("a", "The document itself"), { href: "/openapi.json" })));
  const tags = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, described] of Object.entries(methods)) {
      const [tag = ""] = described.tags ?? [];
      tags.set(tag, [...(tags.get(tag) ?? []), operation(spec, path, method, described)]);
    }
  }
  for (const [tag, operations] of tags) page.append(element("h2", tag), ...operations);
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
