// The examples' variables say `<newest job>` where an id belongs. When such an operation is run,
// the value is looked up, so that the examples work as they are; examples.json says how.

export function names(variables, placeholders) {
  const found = new Set();
  JSON.stringify(variables ?? {}, (_, value) => {
    if (typeof value === 'string' && Object.hasOwn(placeholders, value)) found.add(value);
    return value;
  });
  return [...found];
}

// Variables that the operation does not declare stay as they are: another one in the same tab may
// need something that does not exist yet.
export async function fill(variables, operation, placeholders, send) {
  const declared = new Set(operation.variableDefinitions?.map((d) => d.variable.name.value));
  const used = Object.fromEntries(Object.entries(variables).filter(([name]) => declared.has(name)));
  const values = {};
  for (const name of names(used, placeholders)) {
    const { query, path, missing } = placeholders[name];
    const result = await send(query);
    if (result.errors) throw new Error(`${name}: ${result.errors[0].message}`);
    const value = path.split('.').reduce((at, key) => at?.[key], result.data);
    if (value == null) throw new Error(missing);
    values[name] = value;
  }
  const swap = (_, value) => (Object.hasOwn(values, value) ? values[value] : value);
  return { ...variables, ...JSON.parse(JSON.stringify(used), swap) };
}
