// Bundles the page into ../static/graphiql: hashed names, no source maps, a manifest for routes.py.
import { build } from 'esbuild';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { licences } from './licences.mjs';

const OUT = '../static/graphiql';
const KEEP = new Set(['examples.json', 'favicon.svg']);

// [file, text that must be there, its replacement]: a new version of GraphiQL that no longer
// matches stops the build instead of losing the change in silence.
const PATCHES = [
  // A tab is named by the comment on its first line, when there is one.
  [/@graphiql\/react\/dist\/utility\/tabs\.js$/, [
    ['title: operationName || DEFAULT_TITLE,\n\t\tquery,',
     'title: __title(query) || operationName || DEFAULT_TITLE,\n\t\tquery,'],
    ['title: newTab.operationName ||', 'title: __title(newTab.query) || newTab.operationName ||'],
    ['function guid() {',
     'const __title = (query) => /^#[ \\t]*(\\S.{0,39})/.exec(query ?? "")?.[1].trim();\n'
     + 'function guid() {'],
  ]],
  // Luthier's amber instead of GraphQL's pink, in the editors' own theme.
  [/@graphiql\/react\/dist\/constants\.js$/, [
    ['dark: "#ff5794"', 'dark: "#f0b35a"'], ['light: "#d60590"', 'light: "#a8540a"'],
    ['dark: "#ff579419"', 'dark: "#f0b35a19"'], ['light: "#d6059019"', 'light: "#a8540a19"'],
    ['dark: "#212a3b"', 'dark: "#1d1b1a"'],
  ]],
  [/@graphiql\/react\/dist\/utility\/jsonc\.js$/, [
    ['import { parse,', 'export { formatJSONC } from "luthier-jsonc";\nimport { parse,'],
    ['async function formatJSONC', 'async function __unused'],
    ['import("prettier/plugins/estree"),', ''], ['import("prettier/parser-babel")', ''],
    ['export { formatJSONC, ', 'export { '],
  ]],
];

function patch(text, edits, path) {
  for (const [from, to] of edits) {
    if (!text.includes(from)) throw new Error(`${path} has changed: no ${JSON.stringify(from)}`);
    text = text.replace(from, () => to);
  }
  return text;
}

const patched = {
  name: 'patched',
  setup(b) {
    for (const [filter, edits] of PATCHES) {
      b.onLoad({ filter }, ({ path }) => ({
        contents: patch(readFileSync(path, 'utf8'), edits, path), loader: 'js',
      }));
    }
  },
};

mkdirSync(OUT, { recursive: true });
for (const name of readdirSync(OUT)) if (!KEEP.has(name)) rmSync(`${OUT}/${name}`);

const VS = 'monaco-editor/esm/vs';
const { metafile } = await build({
  bundle: true, splitting: true, minify: true, format: 'esm', target: 'es2022', outdir: OUT,
  entryPoints: {
    graphiql: 'entry.jsx',
    'worker-editor': `${VS}/editor/editor.worker.js`,
    'worker-json': `${VS}/language/json/json.worker.js`,
    'worker-graphql': 'monaco-graphql/esm/graphql.worker.js',
  },
  entryNames: '[name]-[hash]', chunkNames: 'chunk-[hash]', assetNames: '[name]-[hash]',
  loader: { '.ttf': 'file' }, jsx: 'automatic', legalComments: 'none', metafile: true,
  define: { 'process.env.NODE_ENV': '"production"' }, logLevel: 'warning', plugins: [patched],
  alias: {
    'monaco-graphql/esm/monaco-editor.js': './monaco.js',
    'luthier-jsonc': './jsonc.js',
    'prettier/parser-graphql': 'prettier/plugins/graphql',
  },
});

// The entry imports the whole editor, so its style sheet holds these already; nothing loads them.
for (const name of readdirSync(OUT)) if (/^chunk-.*\.css$/.test(name)) rmSync(`${OUT}/${name}`);

const manifest = {};
for (const [path, { entryPoint, cssBundle }] of Object.entries(metafile.outputs)) {
  if (entryPoint && /^(graphiql|worker-\w+)-\w+\.js$/.test(basename(path))) {
    manifest[basename(path).replace(/-\w+\.js$/, '')] = basename(path);
    if (cssBundle && entryPoint === 'entry.jsx') manifest.style = basename(cssBundle);
  }
}
writeFileSync(`${OUT}/manifest.json`, JSON.stringify(manifest, null, 2) + '\n');
writeFileSync(`${OUT}/LICENSES.md`, licences(metafile));
if (process.argv.includes('--sizes')) {
  const sums = {};
  for (const o of Object.values(metafile.outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(o.inputs)) {
      const folder = /node_modules\/((@[^/]+\/)?[^/]+)(\/esm\/vs(\/[^/]+){3})?/.exec(path);
      const key = folder?.[0] ?? path;
      sums[key] = (sums[key] ?? 0) + bytesInOutput;
    }
  }
  for (const [k, v] of Object.entries(sums).sort((a, b) => b[1] - a[1]).slice(0, 40)) {
    console.log(v, k);
  }
}
