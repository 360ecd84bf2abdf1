import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { createPortal } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { GraphiQL } from 'graphiql';
import { DropdownMenu, pick, useGraphiQL, useGraphiQLActions } from '@graphiql/react';
import '@graphiql/react/style.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-history/style.css';
import 'graphiql/graphiql.css';
import 'monaco-graphql/esm/lite.js';
import 'monaco-graphql/esm/monaco-editor.js';
import './page.css';
import { createFetcher } from './fetcher.js';
import { Header, KeyBar } from './header.jsx';
import { forgetKey, readKey, storeKey, watchFragment } from './key.js';

const root = document.getElementById('luthier');
const { home, assets } = root.dataset;
const endpoint = location.origin + location.pathname;
const workers = JSON.parse(root.dataset.workers);

globalThis.MonacoEnvironment = {
  getWorker: (_, label) =>
    new Worker(`${assets}/${workers[label] ?? workers.editor}`, { type: 'module' }),
};

const text = ({ title, query }) => `# ${title}\n\n${query.join('\n')}\n`;
const json = ({ variables }) => (variables ? JSON.stringify(variables, null, 2) : '');

// Lives inside GraphiQL, because only there its stores can be reached; draws into our header.
function Inside({ slot, examples, bridge }) {
  const { addTab, changeTab, setTheme } = useGraphiQLActions();
  const state = useGraphiQL(pick('tabs', 'queryEditor', 'variableEditor', 'theme'));
  const { queryEditor, variableEditor, tabs, theme } = state;

  useEffect(() => {
    bridge.current = (variables) => variableEditor?.setValue(JSON.stringify(variables, null, 2));
  }, [bridge, variableEditor]);

  useEffect(() => {
    if (theme) return undefined;
    const query = matchMedia('(prefers-color-scheme: dark)');
    const follow = () => setTheme(null);
    query.addEventListener('change', follow);
    return () => query.removeEventListener('change', follow);
  }, [theme, setTheme]);

  function open(example) {
    const index = tabs.findIndex((tab) => tab.title === example.title);
    if (index >= 0) return changeTab(index);
    addTab();
    queryEditor?.setValue(text(example));
    return variableEditor?.setValue(json(example));
  }

  if (!slot) return null;
  return createPortal(
    <DropdownMenu>
      <DropdownMenu.Button className="lt-button">Examples ▾</DropdownMenu.Button>
      <DropdownMenu.Content align="end">
        {examples.map((example) => (
          <DropdownMenu.Item key={example.title} onSelect={() => open(example)}>
            {example.title}
          </DropdownMenu.Item>
        ))}
      </DropdownMenu.Content>
    </DropdownMenu>,
    slot,
  );
}

function App({ examples, placeholders }) {
  const [key, setKey] = useState(readKey);
  const [verdict, setVerdict] = useState('unchecked');
  const [live, setLive] = useState(null);
  const [slot, setSlot] = useState(null);
  const bridge = useRef(() => {});
  const current = useRef(key);

  const change = useCallback((next) => {
    current.current = next;
    setVerdict('unchecked');
    setKey(next);
  }, []);
  useEffect(() => watchFragment(change), [change]);

  // A new fetcher for a new key makes GraphiQL read the schema again.
  const fetcher = useMemo(() => createFetcher({
    endpoint,
    placeholders,
    key: () => current.current,
    onKey: (result) => key === current.current && setVerdict(result),
    onLive: setLive,
    onFilled: (variables) => bridge.current(variables),
  }), [key, placeholders]);
  const tabs = useMemo(
    () => examples.map((example) => ({ query: text(example), variables: json(example) })),
    [examples],
  );

  // Tabs and history go where the key is, for they may hold credentials; and who comes back later
  // meets the examples of today.
  return (
    <>
      <Header home={home} keyText={key} verdict={verdict} live={live} slotRef={setSlot}
        onForget={() => { forgetKey(); change(''); }} />
      {(!key || verdict === 'refused') && (
        <KeyBar refused={Boolean(key)} onKey={(next) => { storeKey(next); change(next); }} />
      )}
      <main className="lt-main">
        <GraphiQL fetcher={fetcher} schema={key ? undefined : null} defaultTabs={tabs}
          storage={sessionStorage} shouldPersistHeaders={false}
          schemaDescription inputValueDeprecation defaultEditorToolsVisibility="variables">
          <GraphiQL.Logo><span /></GraphiQL.Logo>
          <Inside slot={slot} examples={examples} bridge={bridge} />
        </GraphiQL>
      </main>
    </>
  );
}

async function start() {
  watchFragment(() => {})();
  let book = { examples: [], placeholders: {} };
  try {
    book = await (await fetch(`${assets}/examples.json`, { credentials: 'omit' })).json();
  } catch {
    // Without its examples the page is still a GraphiQL.
  }
  createRoot(root).render(<App {...book} />);
}

void start();
