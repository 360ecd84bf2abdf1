// Pretty-prints the JSON panels. GraphiQL does it with Prettier's Babel parser: half a megabyte.
import { applyEdits, format } from 'jsonc-parser';

export async function formatJSONC(content) {
  return applyEdits(content, format(content, undefined, { tabSize: 2, insertSpaces: true }));
}
